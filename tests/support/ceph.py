"""A Ceph cluster of one node on loopback: a monitor, a manager, and one OSD that keeps all in memory."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from snappy.sources.plugins.rbd_cluster import Connection, ImageName, RbdSettings, module, pool
from tests.support.ports import held_ports

POOL = "rbd"
START_SECONDS = 60
CONFIGURATION = """
[global]
fsid = {fsid}
mon host = [v1:127.0.0.1:{port}]
mon initial members = a
public addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {folder}/keyring
run dir = {folder}
admin socket = {folder}/$name.$pid.asok
pid file = {folder}/$name.pid
log file = {folder}/$name.log
mon data = {folder}/mon
mgr data = {folder}/mgr
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 6442450944
osd pool default size = 1
osd pool default min size = 1
mon allow pool size one = true
mon warn on pool no redundancy = false
paxos propose interval = 0.02
paxos min wait = 0.01
mon data avail warn = 2
mon data avail crit = 1
mon allow pool delete = true
osd crush chooseleaf type = 0
setuser match path = {folder}
"""


class Ceph:
    """Made by :func:`running`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def settings(self, **others: Any) -> dict[str, Any]:
        """Of a source service."""
        return {"conf": str(self.folder / "ceph.conf"), "keyring": str(self.folder / "keyring"), **others}

    def run(self, *command: str) -> str:
        """A program of Ceph's; it must succeed."""
        environment = {**os.environ, "CEPH_CONF": str(self.folder / "ceph.conf")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    @contextmanager
    def pool(self, namespace: str = "") -> Iterator[Any]:
        """The pool for images, as a ``rados.Ioctx``."""
        settings = RbdSettings(**self.settings())
        with pool(Connection(settings), ImageName("default", POOL, namespace, "any")) as opened:
            yield opened.ioctx

    @contextmanager
    def image(self, name: str, **how: Any) -> Iterator[Any]:
        """An image, as a ``rbd.Image``."""
        with self.pool() as ioctx, module("rbd").Image(ioctx, name, **how) as opened:
            yield opened

    def create(self, name: str, size: int, **how: Any) -> None:
        """A new image."""
        with self.pool() as ioctx:
            module("rbd").RBD().create(ioctx, name, size, **how)

    def names(self) -> list[str]:
        """Of all images."""
        with self.pool() as ioctx:
            return sorted(module("rbd").RBD().list(ioctx))

    def snapshots(self, name: str) -> list[str]:
        """Of an image, oldest first."""
        with self.image(name, read_only=True) as image:
            return [one["name"] for one in image.list_snaps()]

    def remove_all(self) -> None:
        """All images and their snapshots."""
        for name in self.names():
            with self.image(name) as image:
                for one in list(image.list_snaps()):
                    if image.is_protected_snap(one["name"]):
                        image.unprotect_snap(one["name"])
                    image.remove_snap(one["name"])
            with self.pool() as ioctx:
                module("rbd").RBD().remove(ioctx, name)

    def start(self, port: int) -> None:
        """Returns when the OSD is up."""
        folder, fsid, osd = self.folder, str(uuid.uuid4()), str(uuid.uuid4())
        for name in ("mon", "mgr", "osd"):
            (folder / name).mkdir(parents=True)
        (folder / "ceph.conf").write_text(CONFIGURATION.format(fsid=fsid, port=port, folder=folder))
        keyring, monmap = str(folder / "keyring"), str(folder / "monmap")
        self.run("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        everything = [word for kind in ("mon", "osd", "mgr") for word in ("--cap", kind, "allow *")]
        self.run("ceph-authtool", keyring, "--gen-key", "-n", "client.admin", *everything)
        self.run("monmaptool", "--create", "--addv", "a", f"[v1:127.0.0.1:{port}]", "--fsid", fsid, monmap)
        self.run("ceph-mon", "-i", "a", "--mkfs", "--monmap", monmap, "--keyring", keyring)
        self.run("ceph-mon", "-i", "a")
        self._start_manager()
        self._start_osd(osd)
        self.run("ceph", "osd", "pool", "create", POOL, "8", "8")
        with self.pool() as ioctx:
            module("rbd").RBD().pool_init(ioctx, True)

    def _start_manager(self) -> None:
        file = str(self.folder / "mgr" / "keyring")
        rights = ("mon", "allow profile mgr", "osd", "allow *", "mds", "allow *")
        self.run("ceph", "auth", "get-or-create", "mgr.x", *rights, "-o", file)
        self.run("ceph-mgr", "-i", "x", "--keyring", file)

    def _start_osd(self, name: str) -> None:
        number, file = self.run("ceph", "osd", "new", name).strip(), str(self.folder / "osd" / "keyring")
        rights = ("mon", "allow profile osd", "mgr", "allow profile osd", "osd", "allow *")
        self.run("ceph", "auth", "get-or-create", f"osd.{number}", *rights, "-o", file)
        self.run("ceph-osd", "--no-mon-config", "-i", number, "--mkfs", "--keyring", file, "--osd-uuid", name)
        self.run("ceph-osd", "-i", number, "--keyring", file)
        end = time.monotonic() + START_SECONDS
        while "1 up" not in self.run("ceph", "osd", "stat"):
            assert time.monotonic() < end, (self.folder / f"osd.{number}.log").read_text()[-3000:]
            time.sleep(0.2)

    def stop(self) -> None:
        for file in self.folder.glob("*.pid"):
            with suppress(ProcessLookupError):
                os.kill(int(file.read_text()), signal.SIGKILL)


@contextmanager
def running(folder: Path) -> Iterator[Ceph]:
    """A cluster that keeps its files in ``folder``, whose path is to be short: there are sockets in it."""
    with held_ports(1) as (port,):
        pass  # the monitor does not share it
    ceph = Ceph(folder)
    try:
        ceph.start(port)
        yield ceph
    finally:
        ceph.stop()
