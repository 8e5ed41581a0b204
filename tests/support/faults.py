"""A site whose processes and servers are killed, stopped and started again, and what must hold of its jobs then.

Nothing here believes Snappy: bytes are counted where they lie, events are read from the stream one by one, trees are
compared by :mod:`tests.support.compare` and repositories by restic.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import secrets
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

from snappy.repository.repo import Repository
from snappy.repository.store import Store
from tests.support import raw_nats
from tests.support.compare import Options, compare
from tests.support.mortal import die_with_parent
from tests.support.places import Place, in_folder
from tests.support.roles import Deployment, deployed
from tests.support.site import FINAL, ROLES, Site
from tests.support.weed import Weed

MIB = 1 << 20
LOOK_SECONDS = 0.01
ASK_SECONDS = 0.1
JOB_SECONDS = 120.0
HOLD_SECONDS = 3.0
NOT_FOUND = 404
UNREACHABLE = (OSError, TimeoutError, EOFError, ValueError, raw_nats.ServerError)
"""What a request meets whose server is gone, is starting, or has no core behind it."""


class Arena(Site):
    """Made by :func:`arena`. A process is named after its user; ``site1.b`` is a second replica of ``site1``.

    ``steady`` is the folder of what a role keeps that must outlive its process: the streams and the audit log.
    """

    def __init__(self, folder: Path, place: Place, core: Mapping[str, Any], steady: Path, audit: Path) -> None:
        super().__init__(folder, place.target, dict(core))
        self.place, self.steady, self.audit = place, steady, audit
        self.programs: dict[str, list[str]] = {}
        """What stands in for ``snappy`` in the processes named."""

    @property
    def data(self) -> Path:
        return self.folder / "data"

    # ---- processes -----------------------------------------------------------------------------------------------

    def _audit_section(self, own: Path) -> str:
        return f'[audit]\npath = {json.dumps(str(self.audit))}\nreaders = ["alice"]'

    def _alice_section(self, _own: Path) -> str:
        """Of a command line: it has no role."""
        return ""

    def start(self, user: str, program: list[str] | None = None) -> None:
        """Start a process, for the first time or again, with the configuration that it always had."""
        name, _, replica = user.partition(".")
        configuration = self.folder / name / "snappy.toml"
        if not configuration.exists():
            self.configure(name)
        environ = {"PATH": os.environ["PATH"], "HOME": str(configuration.parent)}
        if name == "site1":
            environ |= {key: value for key, value in os.environ.items() if key.startswith("SNAPPY_SOURCE__SITE1__")}
            environ["SNAPPY_SOURCE__SITE1__REPLICA"] = replica or "a"
        command = program or self._program(user)
        with self._log_of(user).open("ab") as log:
            self.processes[user] = subprocess.Popen(
                [*command, *ROLES[name], "--config", str(configuration)],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )

    def run_client(self, *command: str) -> subprocess.Popen[bytes]:
        """A command line of alice's."""
        configuration = self.folder / "alice" / "snappy.toml"
        if not configuration.exists():
            self.configure("alice")
        with self._log_of("alice").open("ab") as log:
            return subprocess.Popen(
                [*self._program("alice"), *command, "--config", str(configuration)],
                env={"PATH": os.environ["PATH"], "HOME": str(configuration.parent)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )

    def _program(self, user: str) -> list[str]:
        return self.programs.get(user) or [str(Path(sys.executable).with_name("snappy"))]

    def kill(self, user: str) -> None:
        """With SIGKILL; returns when the process is gone. It must have been alive."""
        process = self.processes[user]
        assert process.poll() is None, f"{user} was dead already\n{self.log(user)[-4000:]}"
        process.kill()
        process.wait()

    def freeze(self, user: str) -> None:
        """With SIGSTOP: it answers nothing, and does not know."""
        self.processes[user].send_signal(signal.SIGSTOP)

    def thaw(self, user: str) -> None:
        self.processes[user].send_signal(signal.SIGCONT)

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
        super().stop()

    def log(self, user: str) -> str:
        return self._log_of(user).read_text(errors="replace")

    def said(self, user: str, words: str) -> int:
        """How often a process has written ``words`` so far."""
        return self.log(user).count(words)

    def _log_of(self, user: str) -> Path:
        return self.folder / f"{user}.log"

    # ---- jobs ----------------------------------------------------------------------------------------------------

    async def submit(self, kind: str, **command: Any) -> str:
        """Publish a command until it is acknowledged, which a request of its own makes harmless. Its request."""
        body = {"source": "site1", "target": "vault", "request": secrets.token_hex(8), **command}
        await self.ask_until(f"snappy.cmd.{kind}.alice", body, lambda answer: "seq" in answer)
        return str(body["request"])

    async def backup(self, *paths: Path, **command: Any) -> str:
        """Ask for a backup of these folders, by default of all data."""
        chosen = [str(path) for path in paths or (self.data,)]
        return await self.submit("backup", init=True, options={"paths": chosen}, **command)

    async def restore(self, name: str, snapshot: str, **command: Any) -> str:
        """Ask for a restore into a folder of that name."""
        options = {"to": str(self.folder / "back" / name)}
        return await self.submit("restore", snapshot=snapshot, options=options, **command)

    async def record(self, request: str) -> dict[str, Any]:
        """A job as the core knows it now; empty where there is none, or no core."""
        try:
            async with asyncio.timeout(5):
                answer = await self.ask("snappy.api.job.get.alice", {"request": request}, 3.0)
        except UNREACHABLE:
            return {}
        return answer.get("job") or {}

    async def wait_state(self, request: str, states: set[str], seconds: float = JOB_SECONDS) -> dict[str, Any]:
        """The job's record as soon as it is in one of ``states``."""
        deadline, found = monotonic() + seconds, dict[str, Any]()
        while found.get("state") not in states:
            assert monotonic() < deadline, f"not {states} after {seconds} s: {found}\n{self._logs()}"
            await asyncio.sleep(ASK_SECONDS)
            found = await self.record(request) or found
        return found

    async def final(self, request: str, seconds: float = JOB_SECONDS) -> dict[str, Any]:
        return await self.wait_state(request, FINAL, seconds)

    async def succeeded(self, request: str, seconds: float = JOB_SECONDS) -> dict[str, Any]:
        """The record of a job that must succeed."""
        record = await self.final(request, seconds)
        assert record["state"] == "succeeded", f"{record}\n{self._logs()}"
        return record

    async def ask_until(
        self, subject: str, body: object, enough: Callable[[dict[str, Any]], bool], user: str = "alice"
    ) -> dict[str, Any]:
        """The first answer that is ``enough``, however often it takes to ask."""
        deadline = monotonic() + JOB_SECONDS
        while monotonic() < deadline:
            try:
                answer = await self.ask(subject, body, 5.0, user)
                if enough(answer):
                    return answer
            except UNREACHABLE:
                pass  # a server that is gone will be back
            await asyncio.sleep(ASK_SECONDS)
        raise AssertionError(f"{subject} was not answered\n{self._logs()}")

    async def ask(self, subject: str, body: object, seconds: float, user: str = "alice") -> dict[str, Any]:
        """The answer to one request, whoever asks. Raises one of :data:`UNREACHABLE`."""
        url = random.choice(self.server.url.split(","))
        async with asyncio.timeout(2 * seconds), raw_nats.connect(url, user, self.password(user)) as client:
            answer = await client.request(subject, json.dumps(body).encode(), timeout=seconds)
            found: dict[str, Any] = json.loads(answer.body)
            return found

    def _logs(self) -> str:
        return "\n".join(f"--- {user}\n{self.log(user)[-2500:]}" for user in self.processes)

    # ---- what is seen from outside -------------------------------------------------------------------------------

    async def events(self, job: str) -> list[dict[str, Any]]:
        """All events of a job that lie in the stream, as whoever reads it sees them."""
        found: list[dict[str, Any]] = []
        sequence = 1
        while True:
            asked = {"seq": sequence, "next_by_subj": f"snappy.event.*.*.{job}"}
            answer = await self.ask_until("$JS.API.STREAM.MSG.GET.SNAPPY_EVENTS", asked, _is_found_or_not, "core")
            if "error" in answer:
                return found
            found.append(json.loads(base64.b64decode(answer["message"]["data"])))
            sequence = answer["message"]["seq"] + 1

    async def _all_events(self, job: str) -> list[dict[str, Any]]:
        """The events of a job that is over, the last of which may follow its record by a while."""
        deadline = monotonic() + JOB_SECONDS
        while True:
            found = await self.events(job)
            if (found and str(found[-1]["type"]).rpartition(".")[2] in FINAL) or monotonic() > deadline:
                return found
            await asyncio.sleep(ASK_SECONDS)

    async def audited(self, job: str) -> int:
        """How many entries of a job the audit shows; none while it does not answer."""
        try:
            answer = await self.ask("snappy.api.audit.query.alice", {"job": job}, 3.0)
        except UNREACHABLE:
            return 0
        return len(answer.get("entries") or [])

    async def expect_told_once(self, record: Mapping[str, Any]) -> list[str]:
        """The names of a job's events: each number once and in turn, one first, one last; and all in the audit."""
        events = await self._all_events(record["id"])
        names = [str(event["type"]).rpartition(".")[2] for event in events]
        assert [event["id"] for event in events] == [f"{record['id']}/{number + 1}" for number in range(len(events))]
        assert (names.count("accepted"), names[0]) == (1, "accepted"), names
        assert [name for name in names if name in FINAL] == names[-1:], names
        await self.ask_until(
            "snappy.api.audit.query.alice",
            {"job": record["id"]},
            lambda answer: len(answer.get("entries") or []) == len(events),
        )
        return names

    async def expect_audit_whole(self) -> int:
        """How many entries the audit log holds, after all of it was checked."""
        answer = await self.ask_until("snappy.api.audit.verify.alice", {}, lambda answer: bool(answer.get("audit")))
        assert not answer["audit"].get("fault"), answer
        return int(answer["audit"]["entries"])

    def expect_same(self, name: str, *paths: Path) -> int:
        """Compare what was restored under that name; the bytes that are the same."""
        total = 0
        for path in paths or (self.data,):
            found = compare(path, self.folder / "back" / name / str(path).lstrip("/"), Options(root=False))
            assert found.same, found.differences
            total += found.bytes
        assert total > 0
        return total

    def expect_sound(self, program: str, *options: str) -> None:
        """restic reads every byte of the repository and finds no error. Packs of an attempt that was killed may lie
        there in no index: they are no error, and cost only space."""
        restic = self.place.restic(program, self.repository_password, self.folder / "restic cache")
        done = restic.attempt("check", "--read-data", *options)
        said = (done.stdout + done.stderr).decode(errors="backslashreplace")
        assert done.returncode == 0, said
        assert "no errors were found" in said, said

    def snapshots_of(self, program: str, job: str) -> list[str]:
        """The snapshots that restic finds with the job's tag: a job that ran once left one at most."""
        return self.snapshots_by_job(program).get(job, [])

    def snapshots_by_job(self, program: str) -> dict[str, list[str]]:
        """All snapshots that restic finds, by the job in their tags."""
        restic = self.place.restic(program, self.repository_password, self.folder / "restic cache")
        by_job: dict[str, list[str]] = {}
        for found in restic.json("snapshots", "--no-lock"):
            for tag in found.get("tags") or []:
                by_job.setdefault(tag.removeprefix("snappy-job:"), []).append(found["id"])
        return by_job

    # ---- moments -------------------------------------------------------------------------------------------------

    async def amid(self, request: str, folder: Path, size: int, seconds: float = JOB_SECONDS) -> int:
        """Wait until ``size`` more bytes lie below ``folder``; the bytes there then. The job must not be over."""
        deadline, before = monotonic() + seconds, bytes_below(folder)
        while bytes_below(folder) < before + size:
            assert monotonic() < deadline, f"the moment for the fault never came\n{self._logs()}"
            await asyncio.sleep(LOOK_SECONDS)
        return bytes_below(folder)


def _is_found_or_not(answer: dict[str, Any]) -> bool:
    """Whether a stream said that it has such a message or has none; a cluster may have no leader to say so."""
    return "message" in answer or answer.get("error", {}).get("code") == NOT_FOUND


def freeze_server(site: Arena) -> None:
    os.kill(site.server.server.pid, signal.SIGSTOP)


class MortalWeed(Weed):
    """An S3 server that can be started again after :meth:`stop`, where it was and with what it had."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        self.data = folder / "data"
        self._command_line: list[str] = []
        super().__init__(folder, ports)

    def start(self) -> None:
        with (self._folder / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command_line, stdout=log, stderr=log, cwd=self._folder, preexec_fn=die_with_parent
            )
        self._await_answer()

    def _command(self) -> list[str]:
        self._command_line = super()._command()
        return self._command_line


def bytes_below(folder: Path) -> int:
    """Bytes allocated for all files below a folder that others write to; none if it is not there."""
    return sum(found.st_blocks * 512 for found in files_below(folder))


def files_below(folder: Path, suffix: str = "") -> Iterator[os.stat_result]:
    """All plain files whose names end so, as they are found while others write."""
    for top, _, names in os.walk(folder):
        for name in names:
            if not name.endswith(suffix):
                continue
            try:
                found = os.lstat(os.path.join(top, name))
            except FileNotFoundError:
                continue
            if stat.S_ISREG(found.st_mode):
                yield found


def stir(folder: Path, every: int = MIB // 4) -> None:
    """Change a few bytes of each file ``every`` so many, so that no chunk of it is known to a repository any more."""
    for path in folder.iterdir():
        with path.open("r+b") as file:
            for offset in range(0, path.stat().st_size, every):
                file.seek(offset)
                file.write(os.urandom(8))


def make_noise(folder: Path, size: int, file_size: int = 8 * MIB) -> Path:
    """A folder of files that neither compress nor repeat, ``size`` bytes in all."""
    folder.mkdir(parents=True)
    for number in range(size // file_size):
        (folder / f"noise {number}").write_bytes(os.urandom(file_size))
    return folder


@contextmanager
def arena(
    folder: Path,
    place: Place | None = None,
    *,
    core: Mapping[str, Any] | None = None,
    processes: Sequence[str] = tuple(ROLES),
    programs: Mapping[str, list[str]] | None = None,
    steady: Path | None = None,
    audit: Path | None = None,
    servers: Callable[[Path], AbstractContextManager[Deployment]] = deployed,
    wire: Callable[[str], AbstractContextManager[Any]] | None = None,
    rights: str = "rlw",
) -> Iterator[Arena]:
    """A running site with these processes; by default its target is a folder, with ``rights`` and an empty repository,
    and its holds last three seconds.

    The server's files lie below ``steady``, and so does the audit log unless ``audit`` says where. Between the server
    and all processes stands what ``wire`` makes of the server's url.
    """
    settled = steady or folder
    settings = {"hold_seconds": HOLD_SECONDS, **(core or {})}
    made = Arena(folder, place or in_folder(folder), settings, settled, audit or settled / "audit")
    made.programs |= programs or {}
    made.direct, made.rights = wire is None, rights
    if place is None:  # with a key that costs nothing: each process that opens it would take half a second
        Repository.init(Store(made.place.files(), made.place.root), made.repository_password).close()
    with ExitStack() as stack:
        (made.steady / "nats").mkdir()
        made.server = stack.enter_context(servers(made.steady / "nats"))
        straight: Any = SimpleNamespace(url=made.server.url)
        between = stack.enter_context(wire(made.server.url)) if wire else straight
        made.proxies = {**dict.fromkeys(ROLES, between), "alice": straight}
        stack.callback(made.stop)
        for name in processes:
            made.start(name)
        asyncio.run(made.wait_ready())
        yield made
