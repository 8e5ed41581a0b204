"""The layouts of a site that a soak strikes, each with the faults that only it can have."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import tools
from tests.support.disks import Disk, disk
from tests.support.faults import MIB, MortalWeed, arena, freeze_server
from tests.support.grounds import CORE, EVERYBODY, Ground, Layout, Programs
from tests.support.layout_faults import STORAGE, WIRE, on_a_bad_wire, on_bad_storage
from tests.support.monitors import connected, is_healthy
from tests.support.natscluster import Cluster, deployed_cluster
from tests.support.places import Place, in_bucket
from tests.support.storms import PROCESSES, READY, Blow, Fault, Scene, reconnections

SETTLED_SECONDS = 0.2
"""What was on its way when a node died has arrived by then."""
DISK_BYTES = 8192 * MIB

# ---- a folder --------------------------------------------------------------------------------------------------------


@contextmanager
def in_a_folder(folder: Path, programs: Programs) -> Iterator[Ground]:
    with arena(folder, processes=EVERYBODY, programs=programs, core=CORE) as site:
        yield Ground(site, folder / "repository" / "data")


# ---- S3 --------------------------------------------------------------------------------------------------------------


@contextmanager
def in_s3(folder: Path, programs: Programs) -> Iterator[Ground]:
    (folder / "weed").mkdir()
    (folder / "site").mkdir()
    with (
        MortalWeed.running(folder / "weed") as weed,
        arena(folder / "site", in_bucket(weed), processes=EVERYBODY, programs=programs, core=CORE) as site,
    ):
        yield Ground(site, weed.data, ".dat", weed)


async def kill_s3(scene: Scene) -> Blow | None:
    weed: MortalWeed = scene.ground.rig
    died = time.time()
    weed.stop()
    weed.start()
    seconds = await scene.resumed(died, time.time())
    return None if seconds is None else Blow(seconds, "bytes stood still")


async def stop_s3(scene: Scene) -> Blow | None:
    pid = scene.ground.rig.pid
    return await scene.standstill(lambda: os.kill(pid, signal.SIGSTOP), lambda: os.kill(pid, signal.SIGCONT))


S3 = (Fault("kill S3 server", kill_s3), Fault("stop S3 server", stop_s3))


# ---- three nats-servers ----------------------------------------------------------------------------------------------


@contextmanager
def in_a_cluster(folder: Path, programs: Programs) -> Iterator[Ground]:
    settings = {**CORE, "replicas": 3}
    with arena(folder, processes=EVERYBODY, programs=programs, core=settings, servers=deployed_cluster) as site:
        yield Ground(site, folder / "repository" / "data", rig=site.server.server)


async def leader(scene: Scene) -> str:
    """The node that leads the stream of the jobs' records."""

    def is_led(answer: dict[str, Any]) -> bool:
        return bool(answer.get("cluster", {}).get("leader"))

    answer = await scene.site.ask_until("$JS.API.STREAM.INFO.KV_snappy_jobs", {}, is_led, "core")
    return str(answer["cluster"]["leader"])


async def carrier(scene: Scene) -> str:
    """A node through which the job's bytes go; if it can be had, not the leader."""
    cluster: Cluster = scene.ground.rig
    leading = await leader(scene)
    found = {name: connected(server) for name, server in cluster.servers.items()}
    names = scene.dice.sample(sorted(found), len(found))
    return max(names, key=lambda name: (found[name]["site1"] + found[name]["vault"] > 0, name != leading))


async def kill_leader(scene: Scene) -> Blow | None:
    return await _kill_node(scene, await leader(scene), changes=True)


async def kill_carrier(scene: Scene) -> Blow | None:
    return await _kill_node(scene, await carrier(scene))


async def _kill_node(scene: Scene, name: str, *, changes: bool = False) -> Blow | None:
    """It stays away until the work goes on without it, and is back in step before anything else is struck."""
    cluster: Cluster = scene.ground.rig
    before, small = reconnections(scene.site), await scene.small_job() if changes else ""
    died = time.time()
    cluster.away.add(name)
    cluster.servers[name].kill()
    try:
        seconds = await (scene.moved(small, died) if changes else scene.resumed(died, died + SETTLED_SECONDS))
    finally:
        cluster.servers[name].start()
        await _back(scene, name)
    if seconds is None:
        return None
    if changes:
        return Blow(seconds, "another led on", name)
    return Blow(seconds, "reconnects", name) if reconnections(scene.site) > before else None


async def stop_leader(scene: Scene) -> Blow | None:
    """Until a job changes again, be it that another leads on or that this one wakes up."""
    cluster: Cluster = scene.ground.rig
    name = await leader(scene)
    small = await scene.small_job()
    died = time.time()
    _freeze(cluster, name)
    try:
        await scene.nap()
    finally:
        _thaw(cluster, name)
    seconds = await scene.moved(small, died)
    await _back(scene, name)
    return None if seconds is None else Blow(seconds, "the job's next change", name)


async def stop_carrier(scene: Scene) -> Blow | None:
    cluster: Cluster = scene.ground.rig
    name = await carrier(scene)
    blow = await scene.standstill(lambda: _freeze(cluster, name), lambda: _thaw(cluster, name), name)
    await _back(scene, name)
    return blow


def _freeze(cluster: Cluster, name: str) -> None:
    cluster.away.add(name)
    os.kill(cluster.servers[name].pid, signal.SIGSTOP)


def _thaw(cluster: Cluster, name: str) -> None:
    os.kill(cluster.servers[name].pid, signal.SIGCONT)


async def _back(scene: Scene, name: str) -> None:
    cluster: Cluster = scene.ground.rig

    async def healthy() -> bool:
        return is_healthy(cluster.servers[name])

    await scene.until(healthy, f"the node {name} does not catch up")
    cluster.away.discard(name)


CLUSTER = (
    Fault("kill cluster leader", kill_leader),
    Fault("stop cluster leader", stop_leader),
    Fault("kill cluster node", kill_carrier),
    Fault("stop cluster node", stop_carrier),
)


# ---- power -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Disks:
    """Under the streams, under the audit log, and under the repository."""

    server: Disk
    audit: Disk
    target: Disk


@contextmanager
def on_disks(folder: Path, programs: Programs) -> Iterator[Ground]:
    with ExitStack() as stack:
        made = []
        for name in ("server", "audit", "target"):
            (folder / name).mkdir()
            made.append(stack.enter_context(disk(folder / name, DISK_BYTES)))
        disks = Disks(*made)
        (folder / "site").mkdir()
        url = str(disks.target.place / "repository")
        site = stack.enter_context(
            arena(
                folder / "site",
                Place({"url": url}, url),
                processes=EVERYBODY,
                programs=programs,
                core=CORE,
                steady=disks.server.place,
                audit=disks.audit.place / "audit",
            )
        )
        for path in (disks.server.place / "nats").iterdir():
            if path.is_file():
                _reach_the_disk(path)
        yield Ground(site, disks.target.place / "repository" / "data", rig=disks)


def _reach_the_disk(path: Path) -> None:
    """As what an operator wrote has long done."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


async def cut_server(scene: Scene) -> Blow | None:
    """What is acknowledged by the moment of the cut is well defined, for the process stands still before."""
    site, before = scene.site, reconnections(scene.site)
    freeze_server(site)
    died = time.time()
    scene.ground.rig.server.cut_power()
    site.server.server.kill()
    _boot(scene.ground.rig.server)
    site.server.server.start()
    seconds = await scene.resumed(died, time.time())
    return Blow(seconds, "reconnects") if seconds is not None and reconnections(site) > before else None


async def cut_target(scene: Scene) -> Blow | None:
    before, died = scene.site.said("vault", READY), time.time()
    _cut_under(scene, "vault", scene.ground.rig.target)
    seconds = await scene.resumed(died, await scene.ready("vault", before))
    return None if seconds is None else Blow(seconds, "bytes stood still")


async def cut_audit(scene: Scene) -> Blow | None:
    return await scene.amid_changes(lambda: _cut_under(scene, "audit", scene.ground.rig.audit), told=True)


async def cut_all(scene: Scene) -> Blow | None:
    """One machine that has all three."""
    site, disks = scene.site, scene.ground.rig
    before = site.said("vault", READY)
    freeze_server(site)
    for user in ("audit", "vault"):
        site.freeze(user)
    died = time.time()
    for each in (disks.server, disks.audit, disks.target):
        each.cut_power()
    site.server.server.kill()
    for user in ("audit", "vault"):
        site.kill(user)
    for each in (disks.server, disks.audit, disks.target):
        _boot(each)
    site.server.server.start()
    for user in ("audit", "vault"):
        site.start(user)
    seconds = await scene.resumed(died, await scene.ready("vault", before))
    return None if seconds is None else Blow(seconds, "bytes stood still")


def _cut_under(scene: Scene, user: str, under: Disk) -> None:
    scene.site.freeze(user)
    under.cut_power()
    scene.site.kill(user)
    _boot(under)
    scene.site.start(user)


def _boot(under: Disk) -> None:
    under.unmount()
    under.mount()


POWER = (
    Fault("power cut under nats-server", cut_server),
    Fault("power cut under target", cut_target),
    Fault("power cut under audit log", cut_audit),
    Fault("power cut under all three", cut_all),
)


LAYOUTS = (
    Layout("folder", PROCESSES, in_a_folder),
    Layout("s3", S3, in_s3, tools.weed, "SeaweedFS"),
    Layout("cluster", CLUSTER, in_a_cluster),
    Layout("power", POWER, on_disks, tools.has_loop_device, "root and loop devices"),
    Layout("wire", WIRE, on_a_bad_wire),
    Layout("storage", STORAGE, on_bad_storage),
)
