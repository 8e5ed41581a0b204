"""Backups are read through the source service that has their key, by who may browse, and by nobody else."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from snappy.browse.filesystem import SnapshotFileSystem
from snappy.browse.remote import RemoteLibrary
from snappy.cli.browsing import walk
from snappy.config import Allow, Audit, Config, Core, SourceService, TargetService
from snappy.errors import Damaged, Denied, SnapshotNotFound, UnknownKey
from snappy.frontend.api import Client
from snappy.jobs.states import State
from snappy.repository.entries import Node
from snappy.repository.view import View
from snappy.sources import browsing
from tests.support.stack import Inside, in_process

Result = TypeVar("Result")
SECONDS = 60.0
WIDE = 4000
EMPTY = ("site", "vault", "default", "data", [])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    data = Path(os.path.realpath(tmp_path)) / "data"
    (data / "below").mkdir(parents=True)
    (data / "noise").write_bytes(random.Random(1).randbytes(12 << 20))
    (data / "below" / os.fsdecode(b"\xff")).write_bytes(b"odd")
    return data


@pytest.fixture
def settings(tmp_path: Path, data: Path) -> Config:
    may = {"plugins": ["files"], "targets": ["vault"], "read": [str(data)]}
    rules = {
        "alice": Allow(kinds=["backup", "browse"], **may),
        "bob": Allow(kinds=["*"], **may),
    }
    return Config(
        state_dir=str(tmp_path / "state"),
        core=Core(),
        audit=Audit(),
        source={"site": SourceService(allow=rules)},
        target={"vault": TargetService(url=str(tmp_path / "vault"))},
    )


def password(key: str) -> str:
    if key != "default":
        raise UnknownKey(f"no key {key!r}")
    return "right"


@asynccontextmanager
async def stack(settings: Config) -> AsyncIterator[Inside]:
    async with in_process(settings, submitters=["alice", "bob"], passwords=password) as inside:
        yield inside


async def back_up(client: Client, data: Path) -> str:
    command = {"source": "site", "target": "vault", "init": True, "options": {"paths": [str(data)]}}
    record = await client.wait((await client.submit("backup", command)).id)
    assert record.state is State.SUCCEEDED, record.error
    assert record.result
    return record.result.snapshot


def over(inside: Inside, user: str, **more: str) -> SnapshotFileSystem:
    return SnapshotFileSystem(target="vault", source="site", nats=inside.server.broker.nats(user), **more)


async def asked(work: Callable[[], Result]) -> Result:
    async with asyncio.timeout(SECONDS):
        return await asyncio.to_thread(work)


async def test_who_may_browse_reads_any_range_and_sees_what_came_since(settings: Config, data: Path) -> None:
    async with stack(settings) as inside, inside.client("alice") as client:
        snapshot = await back_up(client, data)
        fs = over(inside, "alice")
        wanted = (data / "noise").read_bytes()
        assert await asked(lambda: fs.ls("", detail=False)) == [snapshot[:8]]
        assert await asked(lambda: fs.cat_file(f"latest{data}/noise")) == wanted
        assert (
            await asked(lambda: fs.cat_file(f"{snapshot[:6]}{data}/noise", 5 << 20, (5 << 20) + 99))
            == wanted[5 << 20 :][:99]
        )
        assert await asked(lambda: fs.cat_file(f"latest{data}/below/\udcff")) == b"odd"
        (data / "new").write_bytes(random.Random(2).randbytes(100_000))
        await back_up(client, data)
        fs.invalidate_cache()
        assert await asked(lambda: fs.cat_file(f"latest{data}/new")) == (data / "new").read_bytes()
        with pytest.raises(FileNotFoundError):
            await asked(lambda: fs.info("ffff/x"))
        with pytest.raises(SnapshotNotFound):
            await asked(lambda: fs.view.library.find_snapshot("latest", hosts=["nobody"]))
        await asked(fs.close)


async def test_who_may_not_browse_reads_nothing_and_wrong_questions_get_errors(settings: Config, data: Path) -> None:
    """All kinds of jobs are not all that is in the backups, where restores may not go anywhere."""
    async with stack(settings) as inside, inside.client("alice") as client, inside.client("bob") as bob:
        await back_up(client, data)
        fs = over(inside, "bob")
        with pytest.raises(Denied, match="may not browse"):
            await asked(lambda: fs.ls("latest"))
        for ask in (
            bob.blob("site", "vault", "default", "data", "0" * 64),
            bob.locate("site", "vault", "default", "data", []),
            bob.trees("site", "vault", "default", ["0" * 64]),
        ):
            with pytest.raises(Denied, match="may not browse"):
                await ask
        with pytest.raises(Denied):
            await client.blob("site", "other", "default", "data", "0" * 64)
        await asked(fs.close)
        with pytest.raises(UnknownKey):
            await client.locate("site", "vault", "other", "data", [])
        with pytest.raises(Damaged, match="in no index"):
            await client.blob("site", "vault", "default", "data", "0" * 64)
        assert await client.locate("site", "vault", "default", "tree", ["0" * 64]) == [None]
        with pytest.raises(Damaged, match="in no index"):
            await client.trees("site", "vault", "default", ["0" * 64])


async def test_a_walk_asks_rarely_and_a_directory_may_be_larger_than_a_message(settings: Config, data: Path) -> None:
    for number in range(200):
        (data / "many" / f"{number % 10}" / f"{number}").mkdir(parents=True)
    (data / "wide").mkdir()
    for number in range(WIDE):
        (data / "wide" / f"{number:0200}").touch()
    async with stack(settings) as inside, inside.client("alice") as client:
        await back_up(client, data)
        fs = over(inside, "alice")
        asked_for: list[int] = []

        class Counting(Client):
            async def trees(self, service: str, target: str, key: str, trees: Sequence[str]) -> list[bytes]:
                found = await super().trees(service, target, key, trees)
                asked_for.append(len(found))
                return found

        library = fs.view.library
        assert isinstance(library, RemoteLibrary)
        library._client = Counting(library._client.bus)
        walked = await asked(lambda: [path for path, _ in browsed(fs.view)])
        assert len(walked) == len(set(walked)) > WIDE + 200
        assert len(asked_for) < 30
        assert 0 in asked_for
        (snapshot,) = fs.view.snapshots()
        assert len(await client.trees("site", "vault", "default", [snapshot.tree, "0" * 64])) == 1
        await asked(fs.close)


def browsed(view: View) -> Iterator[tuple[bytes, Node]]:
    return walk(view, view.snapshots()[0])


async def test_a_grant_is_renewed_and_what_is_idle_is_closed(
    settings: Config, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browsing, "RENEW_SECONDS", 59.0)
    async with stack(settings) as inside, inside.client("alice") as client:
        await back_up(client, data)
        fs = over(inside, "alice")
        assert await asked(lambda: fs.exists(f"latest{data}/noise"))
        await asyncio.sleep(1.5)
        assert await asked(lambda: len(fs.cat_file(f"latest{data}/noise"))) == 12 << 20
        closed: list[object] = []
        close = browsing.OpenRepository.close

        async def closing(self: browsing.OpenRepository) -> None:
            closed.append(self)
            await close(self)

        monkeypatch.setattr(browsing.OpenRepository, "close", closing)
        monkeypatch.setattr(browsing, "KEPT_SECONDS", -1.0)
        assert await client.locate("site", "vault", "default", "tree", ["0" * 64]) == [None]
        assert len(closed) == 1
        assert await client.locate("site", "vault", "default", "tree", ["0" * 64]) == [None]
        assert len(closed) == 2
        await asked(fs.close)


def test_all_kinds_with_restores_anywhere_may_browse() -> None:
    browsing.check(Allow(kinds=["*"], targets=["*"], restore_to=["*"]), "vault", "local")
    browsing.check(Allow(kinds=["browse"], targets=["vault"]), "vault", "alice")
    for rule in (
        Allow(kinds=["*"], targets=["*"]),
        Allow(kinds=["browse"], targets=["other"]),
        Allow(kinds=["backup"], targets=["*"], restore_to=["*"]),
    ):
        with pytest.raises(Denied):
            browsing.check(rule, "vault", "alice")
