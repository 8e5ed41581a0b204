"""A source service with a plug-in's settings, a core, an audit and a target, on a private server under the roles' real
permissions. The source service runs in this process, or in one of its own that can be killed; or it is another program,
in whatever language, that speaks the subjects.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from snappy.config import Allow, Config, Core, Hook, Secret, SourceService, TargetService
from snappy.frontend.api import Client
from snappy.jobs.messages import JobRecord
from snappy.jobs.states import State
from snappy.sources.allow import EVERYTHING
from tests.support.stack import PROGRAM, Inside, in_process, secret

SECONDS = 100.0
STRANGER = "bob"
ELSEWHERE = Allow(kinds=["*"], plugins=["*"], targets=["*"], read=["/nowhere"], restore_to=["/nowhere"])
HOLD_SECONDS = 2.0
OURS = (PROGRAM, "source", "run")
"""A program that is given the service's name, and ``--config`` with the path of a ``snappy.toml``."""
STOP_SECONDS = 30.0


class SourceSite:
    """Made by :func:`running`. The service's name is ``site``, the target's ``vault``; alice may do everything."""

    def __init__(self, folder: Path, inside: Inside, clients: Mapping[str, Client], program: Sequence[str]) -> None:
        self._folder, self._inside, self._clients, self._program = folder, inside, clients, program
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def client(self) -> Client:
        return self._clients["alice"]

    @property
    def _settings(self) -> SourceService:
        return self._inside.host.config.source["site"]

    # ---- jobs

    async def started(self, kind: str, *, submitter: str = "alice", **command: Any) -> JobRecord:
        """A new job of the plug-in."""
        plugin = next(iter(self._settings.plugins))
        names = {"source": "site", "target": "vault", "plugin": plugin}
        return await self._clients[submitter].submit(kind, names | command)

    async def ended(self, kind: str, *, submitter: str = "alice", **command: Any) -> JobRecord:
        """The same, when it is over."""
        job = await self.started(kind, submitter=submitter, **command)
        async with asyncio.timeout(SECONDS):
            return await self._clients[submitter].wait(job.id, poll=0.5)

    async def done(self, kind: str, **command: Any) -> JobRecord:
        """The same, of one that has to succeed without a warning."""
        record = await self.ended(kind, **command)
        assert record.state is State.SUCCEEDED, record.error
        assert record.result
        assert record.result.warnings == []
        return record

    async def amid(self, job: JobRecord) -> None:
        """Until the job moves bytes, while it has more of them to move."""
        async with asyncio.timeout(SECONDS):
            while (record := await self.client.get(job.id)).state is not State.RUNNING:
                assert record.state is State.QUEUED, record
                await asyncio.sleep(0.05)
            async for progress in self.client.progress(job.id):
                if progress.bytes:
                    break
        record = await self.client.get(job.id)
        assert record.state is State.RUNNING, record

    async def attempted_again(self, job: JobRecord) -> None:
        """Until the job has succeeded, at its second attempt."""
        async with asyncio.timeout(SECONDS):
            record = await self.client.wait(job.id, poll=0.5)
        assert record.state is State.SUCCEEDED, record.error
        assert len(record.attempts) == 2

    # ---- services

    async def throttle(self, bandwidth: str) -> None:
        """Start the target anew with that limit."""
        config = self._inside.host.config
        target = msgspec.structs.replace(config.target["vault"], bandwidth=bandwidth)
        await self._inside.stop("target vault")
        self._inside.host.config = msgspec.structs.replace(config, target={"vault": target})
        await self._inside.start("target vault")

    @asynccontextmanager
    async def own_process(self) -> AsyncIterator[subprocess.Popen[bytes]]:
        """The source service, instead of the one that runs."""
        with suppress(KeyError):
            await self._inside.stop("source site")
        await self._end_process()
        log = self._folder / "site.log"
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [*self._program, "site", "--config", str(self._configure())],
                env=dict(os.environ) | {"HOME": str(self._folder)},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        try:
            yield self._process
        except BaseException:
            print(log.read_text(errors="replace")[-8000:])
            raise
        finally:
            await self._end_process()

    async def _end_process(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError((self._folder / "site.log").read_text(errors="replace")[-8000:]) from None

    async def wait_alive(self) -> None:
        """Until the core has heard of the service, and would accept jobs for it."""
        async with asyncio.timeout(SECONDS):
            while "site" not in [beat.service for beat in await self.client.services()]:
                await asyncio.sleep(0.1)

    def _configure(self) -> Path:
        users = self._folder / "state" / "nats"
        port = json.loads((users / "broker.json").read_bytes())["port"]
        nats = {
            "url": f"nats://127.0.0.1:{port}",
            "user": "site",
            "password": {"file": str(users / "site.password")},
        }
        site = {name: value for name, value in msgspec.to_builtins(self._settings).items() if value}
        allow = {
            name: {field: places for field, places in rule.items() if places} for name, rule in site["allow"].items()
        }
        source = {"site": _without_none(site | {"allow": allow, "direct": self._settings.direct})}
        path = self._folder / "site.toml"
        path.write_text(
            f"state_dir = {toml(str(self._folder / 'site-state'))}\nnats = {toml(nats)}\nsource = {toml(source)}\n"
        )
        return path

    def leftovers(self) -> list[str]:
        """Folders that plug-ins worked in and did not remove, locks in the repository."""
        work = [str(path) for path in Path(self._settings.work).glob("*/*") if path.is_dir()]
        return work + [str(path) for path in (self._folder / "vault" / "locks").glob("*")]


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(each) for name, each in value.items() if each is not None}
    return value


def toml(value: Any) -> str:
    """A value as TOML has it, in one line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(name)} = {toml(each)}" for name, each in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


@asynccontextmanager
async def running(
    folder: Path,
    plugin: str,
    settings: dict[str, dict[str, Any]],
    *,
    work: Path | None = None,
    hooks: dict[str, Hook] | None = None,
    program: Sequence[str] = OURS,
    beside: Mapping[str, dict[str, dict[str, Any]]] | None = None,
) -> AsyncIterator[SourceSite]:
    """A stack in ``folder``, its plug-ins at work in ``work``. The source service is ``program``, where that is not
    ours. ``beside`` has the settings of further plug-ins."""
    source = SourceService(
        keys={"default": Secret(file=str(secret(folder / "password", "right")))},
        allow={"alice": EVERYTHING, STRANGER: ELSEWHERE},
        plugins={plugin: settings, **(beside or {})},
        work=str(work or folder / "work"),
        hooks=hooks or {},
    )
    config = Config(
        state_dir=str(folder / "state"),
        core=Core(hold_seconds=HOLD_SECONDS),
        source={"site": source},
        target={"vault": TargetService(url=str(folder / "vault"))},
    )
    async with (
        in_process(config, elsewhere=[] if program is OURS else ["source site"]) as inside,
        inside.client("alice") as alice,
        inside.client(STRANGER) as stranger,
    ):
        site = SourceSite(folder, inside, {"alice": alice, STRANGER: stranger}, program)
        if program is OURS:
            yield site
            return
        async with site.own_process():
            await site.wait_alive()
            yield site
