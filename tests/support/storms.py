"""Faults that strike a job under way, each until the work goes on: how long that took, and what was seen of it.

A fault counts only if its victim was serving a job with at least 64 MiB still to come (core and audit: a job about to
change) and something followed that can be seen from outside: bytes that stopped and came again, a new attempt, a new
connection, an error in a log, a repair. What needs more than the site's own processes stands in
:mod:`tests.support.layouts`.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.support.clients import Client
from tests.support.faults import ASK_SECONDS, HOLD_SECONDS, MIB, Arena, files_below
from tests.support.site import FINAL

IN_FLIGHT = 64 * MIB
LOOK_SECONDS = 0.02
READY = '"event": "ready"'
STUCK_SECONDS = 120.0
STOPS = (HOLD_SECONDS + 0.4, HOLD_SECONDS + 2.0)
"""For how long processes are stopped: longer than a hold."""
STANDSTILL_SECONDS = 1.0
"""What is stopped for longer than a hold has let nothing through for at least so long."""
PHASES = ("backup", "restore")


class Stuck(Exception):
    """Work that did not go on."""


@dataclass(frozen=True)
class Blow:
    """What a fault did that counts: ``seconds`` from the death of its victim (from when it went on, if it was only
    stopped) to resumed work, and what ``followed``."""

    seconds: float
    followed: str
    whom: str = ""


@dataclass
class Flow:
    """The bytes of one job where they arrive: in the files of a repository or of a restored tree. ``anew``: a later
    attempt begins again."""

    folder: Path
    size: int
    suffix: str = ""
    anew: bool = False
    before: int = 0
    since: float = 0.0

    def __post_init__(self) -> None:
        self.before = self._bytes()

    def arrived(self) -> int:
        """Bytes of this job, or of its newest attempt."""
        return self._bytes() - self.before

    def left(self) -> int:
        return self.size - self.arrived()

    def newest(self) -> float:
        """When a file was last changed, in Unix seconds."""
        return max((found.st_ctime for found in files_below(self.folder, self.suffix)), default=0.0)

    def begin_again(self, since: float) -> None:
        """The attempt was lost then, in Unix seconds."""
        if self.anew:
            self.before, self.since = 0, since

    def _bytes(self) -> int:
        found = files_below(self.folder, self.suffix)
        return sum(each.st_blocks * 512 for each in found if each.st_ctime > self.since)


@dataclass
class Scene:
    """A job that is about to be struck. ``ground`` is what the layout has beside a site; chance comes from ``dice``;
    ``also`` are the requests of small jobs that were struck with it, ``rotten`` the packs that were damaged."""

    site: Arena
    ground: Any
    request: str
    flow: Flow
    dice: random.Random
    client: Client | None = None
    also: list[str] = field(default_factory=list)
    rotten: list[Path] = field(default_factory=list)

    async def serving(self) -> str:
        """The name of the source process that has the job."""
        attempts = await self.attempts()
        return "site1" if attempts[-1]["replica"] == "a" else f"site1.{attempts[-1]['replica']}"

    async def attempts(self) -> list[dict[str, Any]]:
        return (await self.site.record(self.request)).get("attempts") or []

    async def over(self) -> bool:
        return (await self.site.record(self.request)).get("state") in FINAL

    async def resumed(self, died: float, after: float) -> float | None:
        """Seconds from ``died`` until bytes arrive that are younger than ``after``; None if the job was over before
        any did."""
        deadline = time.monotonic() + STUCK_SECONDS
        asked = 0.0
        while time.monotonic() < deadline:
            over = False
            if time.monotonic() - asked > 1.0:
                asked, over = time.monotonic(), await self.over()
            newest = self.flow.newest()
            if newest > after:
                return newest - died
            if over:
                return None
            await asyncio.sleep(LOOK_SECONDS)
        raise Stuck(f"no byte of {self.request} arrived for {STUCK_SECONDS} s")

    async def ready(self, user: str, before: int) -> float:
        """When a process that was started again said that it serves, having said so ``before`` times."""

        async def said() -> bool:
            return self.site.said(user, READY) > before

        await self.until(said, f"{user} does not start")
        return time.time()

    async def until(self, happened: Callable[[], Awaitable[bool]], what: str) -> None:
        deadline = time.monotonic() + STUCK_SECONDS
        while not await happened():
            if time.monotonic() > deadline:
                raise Stuck(what)
            await asyncio.sleep(ASK_SECONDS)

    async def standstill(self, stop: Callable[[], None], go_on: Callable[[], None], whom: str = "") -> Blow | None:
        """Stop something for longer than a hold. It counts if nothing arrived meanwhile, and something afterwards."""
        stop()
        try:
            await self.nap()
            stood = time.time() - self.flow.newest() >= STANDSTILL_SECONDS
        finally:
            woke = time.time()
            go_on()
        seconds = await self.resumed(woke, woke)
        return Blow(seconds, "bytes stood still", whom) if stood and seconds is not None else None

    async def nap(self) -> None:
        """Longer than a hold."""
        await asyncio.sleep(self.dice.uniform(*STOPS))

    async def amid_changes(
        self, strike: Callable[[], None], go_on: Callable[[], None] | None = None, *, told: bool = False
    ) -> Blow | None:
        """Strike while a small job changes its state; the large one goes on as well. ``told``: until the audit shows
        all changes. It counts if some were still to come."""
        small = await self.small_job()
        await asyncio.sleep(self.dice.uniform(0.0, 0.15))
        died = woke = time.time()
        strike()
        if go_on:
            try:
                await self.nap()
            finally:
                woke = time.time()
                go_on()
        seconds = await self.moved(small, died)
        if seconds is not None and told:
            await self._shown(small)
            seconds = time.time() - died
        return None if seconds is None else Blow(max(0.0, died + seconds - woke), "the job's next change")

    async def _shown(self, small: str) -> None:
        job = (await self.site.record(small))["id"]
        events = len(await self.site.events(job))

        async def shown() -> bool:
            return await self.site.audited(job) == events

        await self.until(shown, "the audit does not show what happened while it was away")

    async def small_job(self) -> str:
        """One that changes its state several times within a second, by the replica that has nothing else to do."""
        self.also.append(await self.site.backup(self.site.data / "small"))
        return self.also[-1]

    async def moved(self, small: str, since: float) -> float | None:
        """Seconds from then to the first event of a small job; None if it was over already."""
        record = await self.site.final(small, STUCK_SECONDS)
        times = [datetime.fromisoformat(str(event["time"])) for event in await self.site.events(record["id"])]
        later = [when.timestamp() for when in times if when.timestamp() > since]
        return later[0] - since if later else None


Later = Callable[[dict[str, Any]], Awaitable[Blow | None]]
"""Recovers when the job is over, and tells by its record what came of a fault."""
Strike = Callable[[Scene], Awaitable[Blow | Later | None]]
"""Strikes, recovers, and tells what came of it: None if the fault does not count."""


@dataclass(frozen=True)
class Fault:
    """``phases``: the kinds of job that it strikes. ``excuses``: the codes of errors with which a job may end that was
    struck. ``ends_attempt``: another attempt has to go on. ``by_client``: the job must be submitted by a command line.
    ``last``: nothing else strikes the job then."""

    name: str
    strike: Strike
    phases: tuple[str, ...] = PHASES
    excuses: frozenset[str] = frozenset()
    ends_attempt: bool = False
    by_client: bool = False
    last: bool = False

    def __str__(self) -> str:
        return self.name


# ---- source and target -----------------------------------------------------------------------------------------------


async def kill_source(scene: Scene) -> Blow | None:
    """It is started again; that one or the other replica goes on."""
    victim, before = await scene.serving(), len(await scene.attempts())
    died = time.time()
    scene.site.kill(victim)
    scene.site.start(victim)
    return await _next_attempt(scene, victim, died, before)


async def stop_source(scene: Scene) -> Blow | None:
    """For longer than its hold; it wakes up while the other replica is at work."""
    victim, before = await scene.serving(), len(await scene.attempts())
    died = time.time()
    scene.site.freeze(victim)
    try:
        blow = await _next_attempt(scene, victim, died, before)
        await asyncio.sleep(scene.dice.uniform(0.0, 0.5))
        return blow
    finally:
        scene.site.thaw(victim)


async def _next_attempt(scene: Scene, victim: str, died: float, before: int) -> Blow | None:
    """Until bytes arrive that the next attempt sent."""
    scene.flow.begin_again(died)

    async def called() -> bool:
        return len(await scene.attempts()) > before or await scene.over()

    await scene.until(called, f"nobody went on with {scene.request}")
    attempts = await scene.attempts()
    if len(attempts) == before:
        return None
    started = float(attempts[before]["started"])
    seconds = await scene.resumed(died, started)
    return None if seconds is None else Blow(seconds, "a new attempt", victim)


async def kill_target(scene: Scene) -> Blow | None:
    before, died = scene.site.said("vault", READY), time.time()
    scene.site.kill("vault")
    scene.site.start("vault")
    seconds = await scene.resumed(died, await scene.ready("vault", before))
    return None if seconds is None else Blow(seconds, "bytes stood still")


async def stop_target(scene: Scene) -> Blow | None:
    return await scene.standstill(lambda: scene.site.freeze("vault"), lambda: scene.site.thaw("vault"))


# ---- the bus ---------------------------------------------------------------------------------------------------------


async def kill_server(scene: Scene) -> Blow | None:
    before = reconnections(scene.site)
    died = time.time()
    scene.site.server.server.restart()
    seconds = await scene.resumed(died, time.time())
    followed = reconnections(scene.site) > before
    return Blow(seconds, "reconnects") if seconds is not None and followed else None


def reconnections(site: Arena) -> int:
    """How often sources and target have said so far that they found the server again."""
    return sum(site.said(user, "NATS is back") for user in site.processes if user.startswith(("site1", "vault")))


async def stop_server(scene: Scene) -> Blow | None:
    pid = scene.site.server.server.pid
    return await scene.standstill(lambda: os.kill(pid, signal.SIGSTOP), lambda: os.kill(pid, signal.SIGCONT))


# ---- core and audit --------------------------------------------------------------------------------------------------


async def kill_core(scene: Scene) -> Blow | None:
    """Amid the changes of a small job; the large one goes on as well."""

    def kill() -> None:
        scene.site.kill("core")
        scene.site.start("core")

    return await scene.amid_changes(kill)


async def stop_core(scene: Scene) -> Blow | None:
    return await scene.amid_changes(lambda: scene.site.freeze("core"), lambda: scene.site.thaw("core"))


async def kill_audit(scene: Scene) -> Blow | None:
    def kill() -> None:
        scene.site.kill("audit")
        scene.site.start("audit")

    return await scene.amid_changes(kill, told=True)


async def stop_audit(scene: Scene) -> Blow | None:
    return await scene.amid_changes(lambda: scene.site.freeze("audit"), lambda: scene.site.thaw("audit"), told=True)


# ---- the command line ------------------------------------------------------------------------------------------------


async def kill_client(scene: Scene) -> Blow | None:
    """The job goes on, and another command line can follow it."""
    assert scene.client
    job = (await scene.site.record(scene.request))["id"]
    died = time.time()
    scene.client.kill()
    seconds = await scene.resumed(died, died)
    await scene.client.watch(job)
    return None if seconds is None else Blow(seconds, "the job went on; another command followed it")


async def stop_client(scene: Scene) -> Blow | None:
    """It wakes up when the job may long be over, and must tell how it ended."""
    assert scene.client
    scene.client.signal(signal.SIGSTOP)
    try:
        await scene.nap()
    finally:
        woke = time.time()
        scene.client.signal(signal.SIGCONT)
    code = await scene.client.ended()
    return Blow(time.time() - woke, "it told the job's end") if code == 0 else None


PROCESSES = (
    Fault("kill source", kill_source, ends_attempt=True),
    Fault("stop source", stop_source, ends_attempt=True),
    Fault("kill target", kill_target),
    Fault("stop target", stop_target),
    Fault("kill nats-server", kill_server),
    Fault("stop nats-server", stop_server),
    Fault("kill core", kill_core),
    Fault("stop core", stop_core),
    Fault("kill audit", kill_audit),
    Fault("stop audit", stop_audit),
    Fault("kill command line", kill_client, by_client=True),
    Fault("stop command line", stop_client, by_client=True, last=True),
)
