"""Two more layouts of a site: one whose wire harms messages, and one whose storage fails."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.faults import MIB, arena
from tests.support.grounds import CORE, EVERYBODY, Ground, Programs
from tests.support.storage_faults import FaultyStorage, On, StorageFault
from tests.support.storage_faults import Plan as StoragePlan
from tests.support.storms import LOOK_SECONDS, STUCK_SECONDS, Blow, Fault, Later, Scene, Stuck
from tests.support.wire_faults import FaultyWire, Message, Plan, Way, Which, WireFault, faulty_wire

# ---- the wire --------------------------------------------------------------------------------------------------------

FRAME = 200_000
"""Bytes from which a message holds an object's data."""
MARK = 64
"""The last bytes of a sealed piece are found in no other."""
REQUESTS = Which("snappy.data.vault.>", Way.TO_SERVER)
SENT = Which("snappy.data.vault.>", Way.TO_SERVER, least=FRAME)
"""Data of a backup, as the source sends it."""
BROUGHT = Which("_INBOX.site1.>", Way.TO_SERVER, least=FRAME)
"""Data of a restore, as the target sends it."""


@dataclass
class Watch:
    """One struck message, and what the wire saw of it later: its data ``again``, or the ``answers`` to it."""

    mark: bytes
    reply: str
    struck: float
    again: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)


class WatchedWire:
    """Remembers what each plan strikes, and looks for it in all that comes later. Runs in the wire's own thread."""

    def __init__(self, wire: FaultyWire) -> None:
        self.wire, self.watched = wire, list[Watch]()
        self._planned = wire.planned
        wire.planned = self._look  # type: ignore[method-assign]

    def _look(self, message: Message) -> Plan | None:
        if message.way is Way.TO_SERVER:
            for watch in self.watched:
                if message.subject == watch.reply:
                    watch.answers.append(time.time())
                if len(message.payload) >= FRAME and message.payload[-MARK:] == watch.mark:
                    watch.again.append(time.time())
        plan = self._planned(message)
        if plan is not None:
            words = message.line.decode().split()
            reply = words[2] if words[0] == "PUB" and len(words) == 4 else ""
            self.watched.append(Watch(message.payload[-MARK:], reply, time.time()))
        return plan


@contextmanager
def on_a_bad_wire(folder: Path, programs: Programs) -> Iterator[Ground]:
    """All processes reach the server over one wire."""
    with arena(folder, processes=EVERYBODY, programs=programs, core=CORE, wire=faulty_wire) as site:
        wire: Any = site.proxies["site1"]
        yield Ground(site, folder / "repository" / "data", rig=WatchedWire(wire))


async def _harm(scene: Scene, fault: WireFault, which: Which, seen: Callable[[Watch], list[float]]) -> Watch | None:
    """Strike one message; what was seen of it, as soon as ``seen`` is not empty. None if the job was over before."""
    rig: WatchedWire = scene.ground.rig
    rig.watched.clear()
    plan = rig.wire.plan(fault, which)
    try:
        deadline = time.monotonic() + STUCK_SECONDS
        while not any(map(seen, rig.watched)) or not plan.struck:
            if await scene.over():
                return None
            if time.monotonic() > deadline:
                raise Stuck(f"{fault} struck {plan.struck} times, and nothing followed")
            await asyncio.sleep(LOOK_SECONDS)
        return next(filter(seen, rig.watched))
    finally:
        plan.end()


def data_of(scene: Scene) -> Which:
    return BROUGHT if scene.flow.anew else SENT


async def sent_again(scene: Scene, fault: WireFault) -> Blow | None:
    """The piece that was harmed has to come another time."""
    watch = await _harm(scene, fault, data_of(scene), lambda seen: seen.again)
    return Blow(watch.again[0] - watch.struck, "sent again") if watch else None


async def answered_twice(scene: Scene, fault: WireFault) -> Blow | None:
    """A repeated request is answered as often as it came, and changes nothing."""
    which = REQUESTS if scene.flow.anew else SENT
    watch = await _harm(scene, fault, which, lambda seen: seen.answers[1:])
    return Blow(watch.answers[1] - watch.struck, "answered twice") if watch else None


async def answered(scene: Scene, fault: WireFault) -> Blow | None:
    """A request that others overtook has its answer."""
    which = REQUESTS if scene.flow.anew else SENT
    watch = await _harm(scene, fault, which, lambda seen: seen.answers)
    return Blow(watch.answers[0] - watch.struck, "answered out of turn") if watch else None


WIRE = (
    Fault("wire: bit flip", partial(sent_again, fault=WireFault.FLIP)),
    Fault("wire: duplicate", partial(answered_twice, fault=WireFault.DUPLICATE)),
    Fault("wire: reorder", partial(answered, fault=WireFault.REORDER)),
    Fault("wire: drop", partial(sent_again, fault=WireFault.DROP)),
    Fault("wire: cut", partial(sent_again, fault=WireFault.CUT)),
)

# ---- the storage -----------------------------------------------------------------------------------------------------

PACKS = "data/*"
PACK_BYTES = 8 * MIB
"""Of one that holds data; those of trees are small, and read first."""
LAST_PACKS = 3
"""Packs of small files, each with some of its own, which are read last."""
LOST = re.compile(r"(\d+) objects could not be restored")


@contextmanager
def on_bad_storage(folder: Path, programs: Programs) -> Iterator[Ground]:
    storage = FaultyStorage(folder / "plans")
    wrapped = {**programs, "vault": storage.program}
    with arena(folder, processes=EVERYBODY, programs=wrapped, core=CORE) as site:
        yield Ground(site, folder / "repository" / "data", rig=storage)


async def storage_fails(scene: Scene, fault: StorageFault) -> Blow | None:
    """One operation; what it was for is asked again, or another attempt is made."""
    storage: FaultyStorage = scene.ground.rig
    before = len(await scene.attempts())
    plan = storage.plan(fault, On.READ if scene.flow.anew else On.WRITE, PACKS)
    watch: StoragePlan | None = None
    try:
        deadline = time.monotonic() + STUCK_SECONDS
        while time.monotonic() < deadline:
            if watch is None and plan.struck:
                struck = time.time()
                watch = storage.plan(StorageFault.SLOW, plan.spec.on, plan.paths[0], seconds=0.0)
            if watch and watch.struck:
                return Blow(time.time() - struck, "asked again")
            attempts = await scene.attempts()
            if watch and len(attempts) > before:
                return Blow(time.time() - struck, "a new attempt")
            if await scene.over():
                return None
            await asyncio.sleep(LOOK_SECONDS)
        raise Stuck(f"{fault} struck {plan.struck} times, and nothing followed")
    finally:
        plan.end()
        if watch:
            watch.end()


async def storage_hangs(scene: Scene) -> Blow | None:
    """All of it, for longer than a hold."""
    storage: FaultyStorage = scene.ground.rig
    plans: list[StoragePlan] = []
    return await scene.standstill(
        lambda: plans.append(storage.plan(StorageFault.HANG, On.ANY, times=0)), lambda: plans[0].end()
    )


async def rot(scene: Scene) -> Later | None:
    """One bit of a pack turns that the restore has not read yet. It must not bring that back as if it were whole; when
    it has ended the bit is turned back, as who has a copy would."""
    packs = [path for path in scene.ground.stored.glob("*/*") if path.stat().st_size >= PACK_BYTES]
    packs.sort(key=lambda path: path.stat().st_ctime)
    sound = [path for path in packs[-LAST_PACKS:] if path not in scene.rotten]
    if not sound:
        return None
    path = scene.dice.choice(sound)
    scene.rotten.append(path)
    number = len(scene.rotten)
    offset, bit = scene.dice.randrange(path.stat().st_size // 2), 1 << scene.dice.randrange(8)
    _turn(path, offset, bit)
    struck = time.time()

    async def found(record: dict[str, Any]) -> Blow | None:
        _turn(path, offset, bit)
        return Blow(float(record["updated"]) - struck, "the job names it") if lost_objects(record) >= number else None

    return found


def lost_objects(record: dict[str, Any]) -> int:
    """How many objects a restore says that it could not bring back for damage."""
    error = record.get("error") or {}
    told = LOST.match(error.get("message", ""))
    return int(told[1]) if told and error.get("code") == "damaged" else 0


def _turn(path: Path, offset: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        found = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([found ^ bit]))
    os.sync()


STORAGE = (
    Fault("storage: error", partial(storage_fails, fault=StorageFault.ERROR)),
    Fault("storage: hang", storage_hangs),
    Fault("storage: short read", partial(storage_fails, fault=StorageFault.SHORT_READ), ("restore",)),
    Fault("storage: bit flip at a read", partial(storage_fails, fault=StorageFault.FLIP_READ), ("restore",)),
    Fault("storage: bit flip at rest", rot, ("restore",), frozenset({"damaged"})),
)
