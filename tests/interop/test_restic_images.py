"""Images of disks, of which only what changed was read: the real restic finds no fault, and restores and dumps them."""

from __future__ import annotations

import random
from pathlib import Path

import fsspec

from snappy.repository.format import MIB
from snappy.repository.repo import Repository
from snappy.repository.store import Store
from tests.support.engine import CHEAP, PASSWORD
from tests.support.fake_disk import PATH, FakeDisk, back_up
from tests.support.restic import Restic


def test_restic_reads_what_was_put_together(restic_program: str, tmp_path: Path) -> None:
    chance = random.Random(5)
    disk = FakeDisk(chance.randbytes(5 * MIB) + bytes(7 * MIB + 512))
    parent, contents = None, []
    store = Store(fsspec.filesystem("file"), str(tmp_path / "repository"))
    with Repository.init(store, PASSWORD, cost=CHEAP) as repository:
        for _ in range(3):
            parent = back_up(repository, disk.now().entry(), parent=parent).snapshot
            contents.append((parent.id, bytes(disk.content)))
            start = chance.randrange(11 * MIB)
            disk.content[start : start + 70_000] = chance.randbytes(70_000)
    restic = Restic(restic_program, tmp_path / "repository", PASSWORD, tmp_path / "cache")
    restic.run("check", "--read-data")
    for snapshot, content in contents:
        assert restic.run("dump", snapshot, PATH.decode()) == content
    restic.run("restore", "latest", "--target", str(tmp_path / "restored"))
    assert (tmp_path / "restored" / "disk").read_bytes() == contents[-1][1]
