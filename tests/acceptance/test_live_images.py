"""A file system on an RBD image, written to as fast as it goes while backups are made: each of them is sound."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import pytest

from snappy.repository.repo import Repository
from snappy.repository.snapshots import Snapshot
from snappy.sources import base
from snappy.sources.site import Site
from tests.support import engine
from tests.support.ceph import POOL, running
from tests.support.images import back_up, bring_back
from tests.support.live_images import FILES, Writer, as_files, expect_sound, mounted
from tests.support.loops import loop

pytestmark = [
    pytest.mark.ceph,
    pytest.mark.long,
    pytest.mark.loop,
    pytest.mark.fuse,
]

SIZE = 192 << 20
BACKUPS = 4


def test_each_backup_is_a_sound_file_system(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as ceph, engine.new_repository() as repository:
        ceph.create("live", SIZE)
        site = Site("north", {"rbd": {"default": ceph.settings()}})
        with as_files(ceph, tmp_path / "images") as images, loop(images / "live") as device:
            subprocess.run(["mkfs.ext4", "-q", "-F", device], check=True)
            with mounted(device, tmp_path / "live") as place:
                writer = Writer(place)
                writer.start()
                try:
                    made = _backups(repository, site, writer)
                finally:
                    writer.stop()
    found = []
    for number, snapshot in enumerate(made):
        bring_back(repository, snapshot, "block", site, to=str(tmp_path / f"{number}"))
        found.append(expect_sound(tmp_path / f"{number}", tmp_path / "back"))
    assert found[-1] == FILES


def _backups(repository: Repository, site: Site, writer: Writer) -> list[Snapshot]:
    source = base.load("rbd")
    snapshots: list[Snapshot] = []
    read: list[int] = []
    while len(snapshots) < BACKUPS or writer.written < 2 * FILES:
        made = source(base.parse(source.Options, {"pool": POOL, "image": "live"}), site)
        before = writer.written
        done = back_up(repository, made, snapshots[-1] if snapshots else None)
        assert writer.written > before, "nothing was written meanwhile"
        snapshots.append(done.snapshot)
        read.append(done.bytes_read)
    assert max(read) < SIZE
    return snapshots
