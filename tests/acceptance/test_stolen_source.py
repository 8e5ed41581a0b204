"""What a stolen source can do to an append-only target: a bare socket with its password and the grant of a real job."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from snappy.bus.filesystem import SnappyFileSystem
from snappy.bus.grants import Grant, SigningKey
from snappy.errors import AccessDenied, AlreadyExists, Corrupt, SnappyError
from tests.support import raw_nats
from tests.support.places import Place, in_bucket, in_folder
from tests.support.site import Site, site
from tests.support.weed import weed_server

pytestmark = pytest.mark.timeout(240)

KINDS = {"config", "keys", "snapshots", "index", "data"}
LATE = 4e9  # no grant of the core lasts so long


class Thief:
    """Has everything that the source service at ``running`` had, and the repository of a finished backup before it."""

    def __init__(self, running: Site, place: Place) -> None:
        self.site, self.place = running, place
        self.grant = ""

    async def claim(self) -> None:
        """The core takes it for a replica of the source service and gives it a job."""
        options = {"paths": [str(self.site.folder / "data")]}
        body = {"source": "site1", "target": "vault", "options": options}
        async with raw_nats.connect(self.site.server.url, "alice", self.site.password("alice")) as alice:
            await alice.request("snappy.api.job.submit.alice", json.dumps({"kind": "backup", "command": body}).encode())
        async with raw_nats.connect(self.site.server.url, "site1", self.site.password("site1")) as client:
            self.grant = json.loads((await client.request("snappy.hold.claim.site1.thief", b"{}")).body)["grant"]

    def files(self, grant: str) -> SnappyFileSystem:
        return SnappyFileSystem("vault", caller="site1", grant=grant, nats=self.site.server.nats("site1"))

    def one_of_each_kind(self) -> list[str]:
        """Paths of objects of the repository."""
        return list({path.split("/")[0]: path for path in self.place.objects()}.values())

    @staticmethod
    def mint(key: SigningKey, caller: str = "site1") -> str:
        """A grant with every right, signed by ``key``."""
        return key.sign(Grant("job", 1, caller, "vault", "rlwWd", LATE, deletes=("",)))


@pytest.fixture(scope="module", params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def thief(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thief]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "data").mkdir()
    (folder / "data" / "file").write_bytes(secrets.token_bytes(100_000))
    if request.param == "folder":
        yield from robbed(folder, in_folder(folder))
    else:
        with weed_server(tmp_path_factory.mktemp("weed")) as weed:
            yield from robbed(folder, in_bucket(weed))


def robbed(folder: Path, place: Place) -> Iterator[Thief]:
    with site(folder, place.target, core={"hold_seconds": 600.0}) as running:
        event = asyncio.run(running.run("backup", options={"paths": [str(folder / "data")]}, init=True))
        assert event["type"] == "io.snappy.backup.succeeded", event
        running.processes["site1"].terminate()
        running.processes["site1"].wait(20)
        found = Thief(running, place)
        asyncio.run(found.claim())
        yield found


@pytest.fixture(params=["granted", "minted"])
def files(request: pytest.FixtureRequest, thief: Thief) -> Iterator[SnappyFileSystem]:
    """The target as the thief sees it, with the grant of its job and with one that the core itself would never give:
    the target's own policy stands even then. What lay there before must lie there after."""
    before = thief.place.objects()
    assert {path.split("/")[0] for path in before} == KINDS
    with closing(thief.files(thief.grant if request.param == "granted" else thief.mint(thief.site.key))) as files:
        yield files
    assert thief.place.objects() == before


Refusal = type[SnappyError] | tuple[type[SnappyError], ...]


def refused(error: Refusal, *attacks: Callable[[], object]) -> None:
    for attack in attacks:
        with pytest.raises(error):
            attack()


def test_nothing_can_be_deleted(thief: Thief, files: SnappyFileSystem) -> None:
    for path in thief.one_of_each_kind():
        refused(
            AccessDenied,
            partial(files.rm_file, path),
            partial(files.rm, path.split("/")[0], recursive=True),
            partial(files.rm_file, f"locks/../{path}"),
            partial(files.rm_file, f"locks//../{path}"),
        )
    refused(AccessDenied, partial(files.rm, "", recursive=True))


def test_nothing_can_be_replaced(thief: Thief, files: SnappyFileSystem) -> None:
    for path in thief.one_of_each_kind():
        another = next(other for other in thief.place.objects() if other != path)
        refused(
            (AccessDenied, AlreadyExists, Corrupt),
            partial(files.pipe_file, path, b""),
            partial(files.pipe_file, path, secrets.token_bytes(3 << 20)),
            partial(files.cp_file, another, path),
            partial(files.pipe_file, f"locks/../{path}", b"other"),
        )


def test_what_does_not_have_the_hash_that_is_its_name_never_shows(files: SnappyFileSystem) -> None:
    for folder in ("keys", "snapshots", "index", "data/00", "locks"):
        forged = f"{folder}/{sha256(b'what it should be').hexdigest()}"
        refused(Corrupt, partial(files.pipe_file, forged, b"forged"))
        refused(Corrupt, partial(files.pipe_file, forged, secrets.token_bytes(3 << 20)))
        assert not files.exists(forged)


def test_a_lock_can_be_written_and_removed(thief: Thief, files: SnappyFileSystem) -> None:
    content = secrets.token_bytes(200)
    name = sha256(content).hexdigest()
    files.pipe_file(f"locks/{name}", content)
    assert thief.place.locks() == [name]
    files.rm_file(f"locks/{name}")
    assert thief.place.locks() == []


def test_without_a_grant_of_the_core_nothing_can_be_done_at_all(thief: Thief, files: SnappyFileSystem) -> None:
    for grant in ("", thief.grant[:-4], thief.mint(SigningKey.generate()), thief.mint(thief.site.key, "site2")):
        with closing(thief.files(grant)) as ungranted:
            refused(
                AccessDenied,
                partial(ungranted.find, ""),
                partial(ungranted.cat_file, "config"),
                partial(ungranted.pipe_file, "new", b"new"),
                partial(ungranted.rm_file, "config"),
            )
