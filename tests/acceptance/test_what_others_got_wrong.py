"""Seven things that an older tool of the same name gets wrong, each shown not to happen here.

All but the last run in this process, on a private server and under the roles' real permissions.
"""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import msgspec
import pytest
from nats.js.errors import NotFoundError

from snappy.bus import streams
from snappy.bus.connection import Bus
from snappy.config import Allow, Config, Core, SourceService, TargetService
from snappy.errors import JobError, SnappyError, SourceError
from snappy.frontend.api import Client
from snappy.jobs import stopping
from snappy.jobs.api_words import Reply
from snappy.jobs.messages import (
    ErrorInfo,
    JobRecord,
    Report,
    Result,
)
from snappy.jobs.states import State
from snappy.repository.entries import Entry, Node, Sink
from snappy.sources import base
from snappy.sources.site import Site
from tests.support.faults import MIB, Arena, arena, bytes_below, make_noise
from tests.support.stack import Inside, Shell, in_process

SECONDS = 60.0
PASSWORD = "the repository's password"
SECRET = "hunter2-in-clear"
INNOCENT = "words-that-may-be-read"


# ---- a source whose export goes wrong --------------------------------------------------------------------------------


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No options."""


class Tape:
    """One file, and what is set to happen after it."""

    name: ClassVar[str] = "tape"
    Options: ClassVar[type[msgspec.Struct]] = Nothing
    RestoreOptions: ClassVar[type[msgspec.Struct]] = Nothing
    then: Callable[[], str]
    thawed: int

    def __init__(self, options: Nothing, site: Site) -> None: ...

    def claims(self) -> list[str]:
        return ["/tape"]

    @asynccontextmanager
    async def snap(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            Tape.thawed += 1

    def export(self, frozen: None) -> Iterator[Entry]:
        yield Entry(path=b"/tape", node=Node(name=b"tape", type="dir", mode=0o755))
        yield Entry(path=b"/tape/a", node=Node(name=b"a", type="file", mode=0o644, size=4), open=_four_bytes)
        problem = Tape.then()
        yield Entry(path=b"/tape/b", node=Node(name=b"b", type="file", mode=0o644), error=problem)

    @classmethod
    def restore_claims(cls, options: Nothing, site: Site) -> list[str]:
        return []

    @classmethod
    def import_(cls, options: Nothing, claims: Sequence[str]) -> Sink:
        raise NotImplementedError


def _four_bytes() -> BinaryIO:
    return io.BytesIO(b"tape")


def says_so() -> str:
    raise SourceError("the tape is torn")


def breaks() -> str:
    raise ZeroDivisionError


def tells_of_a_problem() -> str:
    return "the tape is worn here"


let_go = threading.Event()


def hangs() -> str:
    let_go.wait()
    return "too late"


# ---- the stack -------------------------------------------------------------------------------------------------------


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, type[base.Source]]]:
    """What is installed beside ``files``; a test may take it away."""
    installed: dict[str, type[base.Source]] = {"tape": Tape}
    load = base.load

    def find(name: str) -> type[base.Source]:
        return installed[name] if name in installed else load(name)

    monkeypatch.setattr(base, "load", find)
    monkeypatch.setattr(base, "names", lambda: ["files", *installed])
    Tape.then, Tape.thawed = staticmethod(says_so), 0
    let_go.clear()
    yield installed
    let_go.set()


@pytest.fixture
async def inside(tmp_path: Path, plugins: dict[str, type[base.Source]]) -> AsyncIterator[Inside]:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("content")
    rules = Allow(kinds=["*"], plugins=["*"], targets=["vault"], read=["/tape", str(tmp_path / "data")])
    settings = Config(
        state_dir=str(tmp_path / "state"),
        core=Core(hold_seconds=2.0),
        source={"site": SourceService(allow={"alice": rules})},
        target={"vault": TargetService(url=str(tmp_path / "vault"))},
    )
    async with in_process(settings, ["alice"], lambda key: PASSWORD) as running:
        yield running
        let_go.set()


@pytest.fixture
async def alice(inside: Inside) -> AsyncIterator[Client]:
    async with inside.client("alice") as client:
        yield client


def command(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {
        "source": "site",
        "target": "vault",
        "init": True,
        "options": {"paths": [str(tmp_path / "data")]},
        **more,
    }


def from_tape(**more: Any) -> dict[str, Any]:
    return {"source": "site", "target": "vault", "plugin": "tape", "init": True, **more}


async def job_in(client: Client, state: State) -> JobRecord:
    """The first job in that state."""
    async with asyncio.timeout(SECONDS):
        while not (found := await client.list(states=[state])):
            await asyncio.sleep(0.05)
        return found[-1]


async def over(client: Client, record: JobRecord) -> JobRecord:
    async with asyncio.timeout(SECONDS):
        return await client.wait(record.id, poll=0.5)


async def told(inside: Inside, job: str) -> list[str]:
    """The names of a job's events, as they lie in the stream."""
    async with inside.bus("core") as bus:
        found = [json.loads(body) for body in await stored(bus, bus.subjects.events_stream)]
    return [str(event["type"]).rpartition(".")[2] for event in found if event["subject"] == job]


async def stored(bus: Bus, stream: str) -> list[bytes]:
    """All that lies in a stream."""
    state = (await bus.js.stream_info(stream)).state
    bodies = []
    for sequence in range(max(1, state.first_seq), state.last_seq + 1):
        with suppress(NotFoundError):
            bodies.append((await bus.js.get_msg(stream, sequence)).data or b"")
    return bodies


# ---- the seven -------------------------------------------------------------------------------------------------------


async def test_a_first_failed_run_does_not_end_the_schedule(alice: Client, tmp_path: Path) -> None:
    late = tmp_path / "data" / "late"
    what = command(tmp_path, options={"paths": [str(late)]})
    await alice.schedules.add("nightly", "backup", what, every=1)
    failed = await job_in(alice, State.FAILED)
    assert failed.error is not None
    assert failed.error.code == "source-missing"
    late.write_text("here now")
    succeeded = await job_in(alice, State.SUCCEEDED)
    assert succeeded.created > failed.created
    assert (await alice.schedules.get("nightly")).state == "active"


MISSING: tuple[dict[str, Any], ...] = ({}, {"every": 0}, {"every": None}, {"cron": ""}, {"at": ""}, {"every": "often"})


async def test_a_missing_interval_runs_nothing(alice: Client, tmp_path: Path) -> None:
    for timing in MISSING:
        asked = {"name": "hasty", "kind": "backup", "command": command(tmp_path), "replace": True, **timing}
        answer = await alice.bus.request("snappy.api.schedule.add.alice", json.dumps(asked).encode(), timeout=5.0)
        error = msgspec.json.decode(answer, type=Reply).error
        assert error is not None, timing
        assert error.code == "invalid-command"
    await alice.schedules.add("steady", "backup", command(tmp_path), every=1)
    await job_in(alice, State.SUCCEEDED)
    assert [each.name for each in await alice.schedules.list()] == ["steady"]
    assert {str(record.request).partition("-")[0] for record in await alice.list()} == {"steady"}


def test_the_command_line_wants_an_interval(tmp_path: Path) -> None:
    refused = Shell(tmp_path).run("schedule", "add", "hasty", "--", "backup", tmp_path, "--to", "vault").expect(2)
    assert "--cron --every --at" in refused.err


@pytest.mark.parametrize(
    ("then", "more", "code", "message"),
    [
        (says_so, {}, "source", "the tape is torn"),
        (breaks, {}, "internal", "ZeroDivisionError"),
        (hangs, {"time_limit": 1.0}, "time-limit", ""),
    ],
)
async def test_a_failed_export_does_not_hang(
    inside: Inside,
    alice: Client,
    monkeypatch: pytest.MonkeyPatch,
    then: Callable[[], str],
    more: dict[str, Any],
    code: str,
    message: str,
) -> None:
    monkeypatch.setattr(stopping, "STOP_SECONDS", 2.0)
    Tape.then = staticmethod(then)
    job = await over(alice, await alice.submit("backup", from_tape(**more)))
    assert (job.state, job.error and job.error.code) == (State.FAILED, code)
    assert message in job.error.message  # type: ignore[union-attr]
    let_go.set()
    await until_thawed()
    assert await told(inside, job.id) == ["accepted", "started", "failed"]
    Tape.then = staticmethod(tells_of_a_problem)
    assert (await over(alice, await alice.submit("backup", from_tape()))).state is State.SUCCEEDED, "it still serves"


async def until_thawed() -> None:
    async with asyncio.timeout(SECONDS):
        while not Tape.thawed:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(("name", "steps"), [("flute", ["rejected"]), ("tape", ["accepted", "started", "rejected"])])
async def test_a_missing_plugin_is_told_at_once_and_not_tried_again(
    inside: Inside,
    alice: Client,
    plugins: dict[str, type[base.Source]],
    tmp_path: Path,
    name: str,
    steps: list[str],
) -> None:
    """One that was never there, and one that went since its service said what it has."""
    plugins.clear()
    job = await over(alice, await alice.submit("backup", from_tape(plugin=name)))
    assert (job.state, job.error and job.error.code) == (State.REJECTED, "unknown-plugin")
    assert name in job.error.message  # type: ignore[union-attr]
    assert job.error.hint  # type: ignore[union-attr]
    after = await over(alice, await alice.submit("backup", command(tmp_path)))
    assert after.state is State.SUCCEEDED
    assert await told(inside, job.id) == steps
    assert (await alice.get(job.id)) == job


@pytest.mark.parametrize(
    ("then", "state"), [(says_so, State.FAILED), (tells_of_a_problem, State.SUCCEEDED)], ids=["failed", "warned"]
)
async def test_what_a_plugin_says_of_its_job_stays(
    inside: Inside, alice: Client, then: Callable[[], str], state: State
) -> None:
    Tape.then = staticmethod(then)
    job = await over(alice, await alice.submit("backup", from_tape()))
    said = [job.error.message] if job.error else [warn.message for warn in job.result.warnings]  # type: ignore[union-attr]
    assert (job.state, len(said)) == (state, 1)
    assert said[0].startswith("the tape is")
    await report_again(inside, job)
    with pytest.raises(JobError, match="is over"):
        await alice.cancel(job.id)
    assert await alice.get(job.id) == job
    assert await told(inside, job.id) == ["accepted", "started", state]


async def report_again(inside: Inside, job: JobRecord) -> None:
    """The job's own worker says other things of the attempt that it reported before; returns when the core has read
    them."""
    attempt = job.attempts[-1]
    other = [
        Report(job=job.id, attempt=attempt.number, kind="succeeded", at=0.0, result=Result(snapshot="0" * 64)),
        Report(job=job.id, attempt=attempt.number, kind="failed", at=0.0, error=ErrorInfo(code="internal", message="")),
        Report(job=job.id, attempt=attempt.number, kind="checkpoint", at=0.0, checkpoint={"files": 0}),
    ]
    async with inside.bus("site") as bus, inside.bus("core") as core:
        for report in other:
            await bus.store(bus.subjects.report("site", attempt.replica), msgspec.json.encode(report))
        async with asyncio.timeout(SECONDS):
            while await stored(core, core.subjects.reports_stream):
                await asyncio.sleep(0.02)


async def test_no_secret_stands_in_a_jobs_row(inside: Inside, alice: Client, tmp_path: Path) -> None:
    """Nor in an event, a schedule or the audit: neither what a job was done with, nor what somebody put into one."""
    good = await over(alice, await alice.submit("backup", command(tmp_path, tags=[INNOCENT])))
    assert good.state is State.SUCCEEDED
    url = f"s3://key:{SECRET}@bucket/x"
    careless = [
        command(tmp_path, password=SECRET),
        command(tmp_path, target=f"s3://key:{SECRET}@bucket"),
        command(tmp_path, options={"paths": [str(tmp_path)], "password": SECRET}),
        command(tmp_path, options={"paths": [url]}),
        command(tmp_path, options={"paths": [str(tmp_path / "data")], "exclude": [url]}),
    ]
    for number, each in enumerate(careless):
        assert (await alice.submit("backup", each)).state is State.REJECTED
        with pytest.raises(SnappyError):
            await alice.schedules.add("careless", "backup", each, every=3600)
        request = f"published-{number}"
        await alice.bus.store("snappy.cmd.backup.alice", json.dumps({**each, "request": request}).encode())
    async with asyncio.timeout(SECONDS):
        while len(await alice.list(states=[State.REJECTED])) < 2 * len(careless):
            await asyncio.sleep(0.05)
    found = await everything(inside, tmp_path / "state" / "audit")
    assert {place for place, content in found.items() if INNOCENT.encode() in content} >= {"records", "events", "audit"}
    for secret in (SECRET, PASSWORD):
        assert [place for place, content in found.items() if secret.encode() in content] == []


async def everything(inside: Inside, audit: Path) -> dict[str, bytes]:
    """What lies in each stream and bucket, and in the audit log once it holds every event."""
    async with inside.bus("core") as bus:
        subjects = bus.subjects
        names = {each.name: each.name for each in [*streams.streams(subjects), *streams.buckets(subjects)]}
        names |= {f"KV_{subjects.jobs_bucket}": "records", subjects.events_stream: "events"}
        found = {place: b"\n".join(await stored(bus, stream)) for stream, place in names.items()}
        async with asyncio.timeout(SECONDS):
            while (await bus.js.consumer_info(subjects.events_stream, subjects.audit_durable)).num_pending:
                await asyncio.sleep(0.05)
    return found | {"audit": b"".join(path.read_bytes() for path in audit.rglob("*") if path.is_file())}


VOLUME = 192 * MIB
STAGED = VOLUME // 16
"""More than the records, events and logs of two jobs; far less than what they move."""


@pytest.mark.timeout(240)
def test_the_volume_is_not_staged_on_the_cores_disk(tmp_path: Path) -> None:
    """What each process wrote to any disk while a volume was backed up and restored: all but the target next to
    nothing, but for the source, whose restore it is."""
    with arena(tmp_path) as site:
        make_noise(site.data, VOLUME)

        async def measure() -> tuple[dict[str, int], dict[str, int]]:
            before = written(site)
            backup = await site.succeeded(await site.backup())
            between = written(site)
            restore = await site.restore("here", backup["result"]["snapshot"])
            await site.succeeded(restore)
            after = written(site)
            return grown(before, between), grown(between, after)

        saved, restored = asyncio.run(measure())
        assert site.expect_same("here") == VOLUME
        print(f"written in the backup {saved}, in the restore {restored}")
        if not saved["vault"]:
            pytest.skip("the file system of the temporary folder keeps no account of writes: it is in memory")
        assert saved["vault"] >= VOLUME
        assert restored["site1"] >= VOLUME
        for name in ("core", "audit", "nats-server"):
            assert max(saved[name], restored[name]) < STAGED, name
        assert saved["site1"] < STAGED
        assert restored["vault"] < STAGED
        assert bytes_below(tmp_path / "core") + bytes_below(tmp_path / "nats") < STAGED


def written(site: Arena) -> dict[str, int]:
    """Bytes that each process has handed to the file system so far (``write_bytes`` of proc_pid_io(5))."""
    pids = {name: process.pid for name, process in site.processes.items()}
    pids["nats-server"] = site.server.server.pid
    return {name: write_bytes(pid) for name, pid in pids.items()}


def write_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: after[name] - before[name] for name in after}
