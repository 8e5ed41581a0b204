"""Faults that strike a job under way, each until the work goes on: how long that took, and whether it counts.

A fault counts only if its victim was serving the job and something observable followed: bytes of the job that arrive
after the death, a change of its record, or an answer of the one that was killed.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.faults import ASK_SECONDS, LOOK_SECONDS, Arena, newest_below
from tests.support.site import FINAL

SETTLED_SECONDS = 0.5
"""What was on its way when the victim died has arrived by then; so no recovery is measured as shorter than this."""
STUCK_SECONDS = 180.0


class Stuck(Exception):
    """Work that did not go on."""


@dataclass(frozen=True)
class Scene:
    """A job that is about to be struck: its bytes arrive below ``folder``; chance comes from ``dice``."""

    site: Arena
    request: str
    folder: Path
    dice: random.Random

    async def serving(self) -> str:
        """The name of the source process that has the job."""
        attempts = (await self.site.record(self.request)).get("attempts") or [{"replica": "a"}]
        return "site1" if attempts[-1]["replica"] == "a" else f"site1.{attempts[-1]['replica']}"

    async def resumed(self, since: float) -> float | None:
        """Seconds from then until bytes arrive again; None if the job was over before any did."""
        deadline = time.monotonic() + STUCK_SECONDS
        asked = 0.0
        while time.monotonic() < deadline:
            newest = newest_below(self.folder)
            if newest > since + SETTLED_SECONDS:
                return newest - since
            if time.monotonic() - asked > 1.0:
                asked = time.monotonic()
                if (await self.site.record(self.request)).get("state") in FINAL:
                    return None
            await asyncio.sleep(LOOK_SECONDS)
        raise Stuck(f"no byte of {self.request} arrived for {STUCK_SECONDS} s")

    async def until(self, happened: Callable[[], Awaitable[bool]], what: str) -> None:
        deadline = time.monotonic() + STUCK_SECONDS
        while not await happened():
            if time.monotonic() > deadline:
                raise Stuck(what)
            await asyncio.sleep(ASK_SECONDS)


Strike = Callable[[Scene], Awaitable[float | None]]
"""Strikes, recovers, and returns the seconds from death to resumed work, or None if the fault does not count."""


@dataclass(frozen=True)
class Fault:
    """``in_transit``: strikes while bytes are under way; otherwise while the job is accepted, begun or ended."""

    name: str
    strike: Strike
    in_transit: bool = True


async def kill_source(scene: Scene) -> float | None:
    """The other replica goes on."""
    victim = await scene.serving()
    died = time.time()
    scene.site.kill(victim)
    try:
        return await scene.resumed(died)
    finally:
        scene.site.start(victim)


async def stop_source(scene: Scene) -> float | None:
    """For longer than its hold; it wakes up while the other replica is at work."""
    victim = await scene.serving()
    died = time.time()
    scene.site.freeze(victim)
    try:
        seconds = await scene.resumed(died)
        await asyncio.sleep(scene.dice.uniform(0.0, 0.5))
        return seconds
    finally:
        scene.site.thaw(victim)


async def kill_target(scene: Scene) -> float | None:
    died = time.time()
    scene.site.kill("vault")
    scene.site.start("vault")
    return await scene.resumed(died)


async def stop_target(scene: Scene) -> float | None:
    """Counted from when it goes on."""
    scene.site.freeze("vault")
    try:
        await asyncio.sleep(scene.dice.uniform(4.0, 10.0))
    finally:
        woke = time.time()
        scene.site.thaw("vault")
    return await scene.resumed(woke)


async def kill_server(scene: Scene) -> float | None:
    died = time.time()
    scene.site.server.server.restart()
    return await scene.resumed(died)


async def stop_server(scene: Scene) -> float | None:
    """Counted from when it goes on."""
    pid = scene.site.server.server.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(scene.dice.uniform(2.0, 10.0))
    finally:
        woke = time.time()
        os.kill(pid, signal.SIGCONT)
    return await scene.resumed(woke)


async def kill_core(scene: Scene) -> float | None:
    """Until the job's record changes again."""
    died = time.time()
    scene.site.kill("core")
    scene.site.start("core")

    async def changed() -> bool:
        return float((await scene.site.record(scene.request)).get("updated", 0.0)) > died

    await scene.until(changed, "the record of the job did not change any more")
    return float((await scene.site.record(scene.request))["updated"]) - died


async def kill_audit(scene: Scene) -> float | None:
    """Until it shows an entry of the job."""
    died = time.time()
    scene.site.kill("audit")
    scene.site.start("audit")

    async def shown() -> bool:
        job = (await scene.site.record(scene.request)).get("id", "")
        return bool(job) and bool(await scene.site.audited(job))

    await scene.until(shown, "the audit does not answer any more")
    return time.time() - died


FAULTS = (
    Fault("kill source", kill_source),
    Fault("stop source", stop_source),
    Fault("kill target", kill_target),
    Fault("stop target", stop_target),
    Fault("kill nats-server", kill_server),
    Fault("stop nats-server", stop_server),
    Fault("kill core", kill_core, in_transit=False),
    Fault("kill audit", kill_audit, in_transit=False),
)
