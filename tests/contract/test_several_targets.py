"""One backup to several targets over the bus, under real permissions: read once, kept by a quorum, caught up later."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from snappy.config import Allow, Config, Core, Limits, SourceService, TargetService
from snappy.errors import JobNotFound, NoSpace
from snappy.frontend.api import Client
from snappy.jobs.messages import JobRecord
from snappy.jobs.states import FINAL, State
from snappy.sources import copies
from snappy.targets.local import LocalDraft
from tests.support.mortal import die_with_parent
from tests.support.restic import Restic
from tests.support.stack import PROGRAM, Inside, in_process, secret
from tests.support.tools import restic

pytestmark = pytest.mark.timeout(180)

SECONDS = 90.0
PASSWORDS = {"default": "password of a", "b": "password of b", "c": "password of c"}
TO_ALL = {
    "source": "site",
    "target": "a",
    "targets": [{"target": "b", "key": "b"}, {"target": "c", "key": "c"}],
    "init": True,
}


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    (tmp_path / "data" / "below").mkdir(parents=True)
    (tmp_path / "data" / "noise").write_bytes(os.urandom(3 << 20))
    (tmp_path / "data" / "below" / "text").write_bytes(b"again and again\n" * 10_000)
    allowed = Allow(kinds=["backup"], plugins=["files"], targets=["*"], read=["/"])
    half = Allow(kinds=["backup"], plugins=["files"], targets=["a", "b"], read=["/"])
    return Config(
        state_dir=str(tmp_path / "state"),
        core=Core(hold_seconds=2.0, max_attempts=2, limits=Limits(target=1)),
        source={"site": SourceService(allow={"alice": allowed, "bob": half}, workers=1)},
        target={name: TargetService(url=str(tmp_path / name), rights="rlw") for name in "abc"},
    )


@asynccontextmanager
async def running(settings: Config, passwords: dict[str, str] | None = None) -> AsyncIterator[tuple[Inside, Client]]:
    known = passwords or PASSWORDS
    async with (
        in_process(settings, ["alice", "bob"], passwords=known.__getitem__) as inside,
        inside.client("alice") as client,
    ):
        yield inside, client


def backup(folder: Path, **changes: Any) -> dict[str, Any]:
    return {**TO_ALL, "options": {"paths": [str(folder / "data")]}, **changes}


async def seen(client: Client, job: str, happened: Callable[[JobRecord], bool]) -> JobRecord:
    """The record as soon as that has happened."""
    async with asyncio.timeout(SECONDS):
        while True:
            with suppress(JobNotFound):  # a copy is there a moment later than its name
                if happened(record := await client.get(job)):
                    return record
            await asyncio.sleep(0.1)


async def ended(client: Client, job: str) -> JobRecord:
    return await seen(client, job, lambda record: record.state in FINAL)


def states(record: JobRecord) -> dict[str, str]:
    return {one.target: one.state for one in (record.result.stored if record.result else [])}


def everywhere(record: JobRecord) -> bool:
    return states(record) == dict.fromkeys("abc", "stored")


async def backups(client: Client) -> dict[str, int]:
    """How many `snappy status` knows of at each target."""
    return {source.known.target: len(source.known.backups) for source in (await client.status()).sources}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*")}


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def expect_restored(record: JobRecord, folder: Path) -> None:
    """What each of the three says it has, restic restores."""
    assert record.result
    for one in record.result.stored:
        theirs = Restic(restic() or "", folder / one.target, PASSWORDS[one.key], folder / f"cache-{one.target}")
        theirs.check()
        theirs.run("restore", one.snapshot, "--target", folder / "back" / one.target)
        assert tree(folder / "back" / one.target) == tree(folder / "data")


@pytest.mark.restic
async def test_two_of_three_with_one_down_which_catches_up(settings: Config, tmp_path: Path) -> None:
    async with running(settings) as (inside, client):
        await inside.stop("target c")
        record = await ended(client, (await client.submit("backup", backup(tmp_path, quorum=2))).id)
        assert (record.state, record.error) == (State.SUCCEEDED, None)
        assert states(record)["c"] in ("waiting", "behind")
        assert {name: state for name, state in states(record).items() if name != "c"} == {"a": "stored", "b": "stored"}
        copy = next(one.job for one in record.result.stored if one.target == "c") if record.result else ""
        assert await backups(client) == {"a": 1, "b": 1, "c": 0}
        behind = await seen(client, record.id, lambda now: states(now)["c"] == "behind")
        assert behind.result
        assert behind.result.stored[2].reason
        await inside.stop("target a")  # so that what the copy was begun from is gone
        await inside.start("target c")
        record = await seen(client, record.id, everywhere)
        assert record.state is State.SUCCEEDED
        assert await backups(client) == {"a": 1, "b": 1, "c": 1}
        followed = await client.get(copy)
        assert (followed.state, followed.follows, followed.kind) == (State.SUCCEEDED, record.id, "copy")
    assert record.result
    for one in record.result.stored:
        assert names(tmp_path / one.target / "snapshots") == {one.snapshot}
        assert names(tmp_path / one.target / "locks") == set()
    expect_restored(record, tmp_path)


async def test_the_first_target_is_down(settings: Config, tmp_path: Path) -> None:
    async with running(settings) as (inside, client):
        await inside.stop("target a")
        record = await ended(client, (await client.submit("backup", backup(tmp_path, quorum=2))).id)
        assert (record.state, record.error) == (State.SUCCEEDED, None)
        assert [attempt.target for attempt in record.attempts] == ["a", "b"]
        await inside.start("target a")
        await seen(client, record.id, everywhere)
    assert [len(names(tmp_path / name / "snapshots")) for name in "abc"] == [1, 1, 1]


async def test_all_are_asked_for_unless_it_is_said_otherwise(settings: Config, tmp_path: Path) -> None:
    async with running(settings) as (inside, client):
        await inside.stop("target b")
        record = await ended(client, (await client.submit("backup", backup(tmp_path))).id)
        assert record.state is State.FAILED
        assert record.error
        assert record.error.code == "quorum-missed"
        assert record.error.message.startswith("a, c have the backup, and 3 of 3 were asked for; b: ")
        await inside.start("target b")
        assert (await seen(client, record.id, everywhere)).state is State.FAILED


@pytest.mark.long
async def test_a_wrong_password_at_one(settings: Config, tmp_path: Path) -> None:
    async with running(settings) as (_, client):
        await ended(client, (await client.submit("backup", backup(tmp_path, quorum=3))).id)
    async with running(settings, {**PASSWORDS, "default": "a wrong one"}) as (_, client):
        enough = await ended(client, (await client.submit("backup", backup(tmp_path, quorum=2))).id)
        too_few = await ended(client, (await client.submit("backup", backup(tmp_path, quorum=3))).id)
    assert enough.state is State.SUCCEEDED
    assert [attempt.target for attempt in enough.attempts] == ["a", "b"]
    assert states(enough) == {"a": "failed", "b": "stored", "c": "stored"}
    assert too_few.error
    assert (too_few.state, too_few.error.code) == (State.FAILED, "quorum-missed")
    assert "a: " in too_few.error.message


@pytest.mark.long
async def test_one_target_is_full(settings: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = LocalDraft.write

    def written(draft: LocalDraft, data: Any) -> None:
        if draft._path.is_relative_to(tmp_path / "a" / "data"):
            raise NoSpace("it is full")
        write(draft, data)

    monkeypatch.setattr(LocalDraft, "write", written)
    async with running(settings) as (_, client):
        record = await ended(client, (await client.submit("backup", backup(tmp_path, quorum=2))).id)
        assert (record.state, record.error) == (State.SUCCEEDED, None)
        record = await seen(client, record.id, lambda now: set(states(now).values()) == {"stored", "failed"})
    assert record.result
    [failed] = [one for one in record.result.stored if one.state == "failed"]
    assert failed.target == "a"
    assert "it is full" in failed.reason


async def test_what_no_target_takes(settings: Config, tmp_path: Path) -> None:
    nothing = {"paths": [str(tmp_path / "nothing")]}
    async with running(settings) as (inside, client), inside.client("bob") as bob:
        nowhere = await ended(client, (await client.submit("backup", backup(tmp_path, quorum=1, init=False))).id)
        missing = await ended(client, (await client.submit("backup", backup(tmp_path, options=nothing))).id)
        denied = await ended(bob, (await bob.submit("backup", backup(tmp_path))).id)
        unknown = await bob.submit("backup", backup(tmp_path, targets=[{"target": "nowhere"}]))
        twice = await bob.submit("backup", backup(tmp_path, targets=[{"target": "a"}]))
    errors = [one.error.code if one.error else "" for one in (nowhere, missing, denied, unknown, twice)]
    assert errors == ["quorum-missed", "source-missing", "denied", "unknown-service", "invalid-command"]
    assert [one.state for one in (nowhere, missing, denied)] == [State.FAILED, State.FAILED, State.REJECTED]
    assert [len(nowhere.attempts), len(missing.attempts)] == [3, 1]
    assert nowhere.error
    assert nowhere.error.message.startswith("no target has the backup, and 1 of 3 were asked for; a: ")
    assert states(nowhere) == dict.fromkeys("abc", "failed")
    assert names(tmp_path / "a") == set()


async def test_who_cancels_the_backup_gets_no_copies(
    settings: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copies._copy

    def stalled(shop: Any, command: Any) -> Any:
        while True:
            shop.hold.check()
            os.sched_yield()

    monkeypatch.setattr(copies, "_copy", stalled)
    async with running(settings) as (_, client):
        job = (await client.submit("backup", backup(tmp_path))).id
        record = await seen(client, job, lambda now: now.state is State.COPYING)
        jobs = [one.job for one in record.result.stored if one.job] if record.result else []
        await seen(client, jobs[0], lambda now: now.state is State.RUNNING)
        assert (await client.cancel(job)).state is State.CANCELLED
        assert [(await ended(client, one)).state for one in jobs] == [State.CANCELLED] * 2
        monkeypatch.setattr(copies, "_copy", copy)
    assert states(record) == {"a": "stored", "b": "waiting", "c": "waiting"}


# ---- the source dies -----------------------------------------------------------------------------------------------


@contextmanager
def source_process(inside: Inside, folder: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """What starts the source service in a process of its own."""
    way = inside.server.broker.nats("site")
    assert way.password
    told = msgspec.to_builtins(way.password)
    keys = {key: str(secret(folder / f"key-{key}", password)) for key, password in PASSWORDS.items()}
    lines = [
        f'state_dir = "{folder / "other-state"}"',
        f'[nats]\nurl = "{way.url}"\nuser = "site"\npassword = {_toml(told)}',
        "[source.site]\nworkers = 1",
        *(f'keys.{key} = {{ file = "{file}" }}' for key, file in keys.items()),
        '[source.site.allow.alice]\nkinds = ["backup"]\nplugins = ["files"]\ntargets = ["*"]\nread = ["/"]',
    ]
    (folder / "source.toml").write_text("\n".join(lines))
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [PROGRAM, "source", "run", "site", "--config", str(folder / "source.toml")]
        with (folder / "source.log").open("ab") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=die_with_parent))
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            process.kill()
            process.wait()


def _toml(value: dict[str, Any]) -> str:
    return "{ " + ", ".join(f"{name} = {json.dumps(text)}" for name, text in value.items() if text) + " }"


def stored_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "data").rglob("*") if path.is_file())


async def killed_amid(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Once some of the data lies there."""
    async with asyncio.timeout(SECONDS):
        while stored_bytes(folder) < 16 << 20:
            assert process.poll() is None, (folder.parent / "source.log").read_text()
            await asyncio.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.long
@pytest.mark.restic
async def test_the_source_is_killed_amid_the_backup_and_amid_a_copy(settings: Config, tmp_path: Path) -> None:
    (tmp_path / "data" / "much").write_bytes(os.urandom(48 << 20))
    async with running(settings) as (inside, client):
        await inside.stop("source site")
        with source_process(inside, tmp_path) as start:
            source = start()
            job = (await client.submit("backup", backup(tmp_path, bandwidth="24M"))).id
            await killed_amid(source, tmp_path / "a")
            source = start()
            await seen(client, job, lambda now: now.state is State.COPYING)
            await killed_amid(source, tmp_path / "b")
            start()
            record = await ended(client, job)
    assert (record.state, record.error) == (State.SUCCEEDED, None)
    assert [attempt.target for attempt in record.attempts] == ["a", "a"]
    assert everywhere(record)
    assert [len(names(tmp_path / name / "snapshots")) for name in "abc"] == [1, 1, 1]
    expect_restored(record, tmp_path)
