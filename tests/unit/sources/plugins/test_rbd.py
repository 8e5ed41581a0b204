"""Images of a real Ceph cluster: only what changed is read, whatever was done to them between two backups."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snappy.errors import BadOptions, ProgramMissing, SourceDenied, SourceError, SourceMissing, SourceUnavailable
from snappy.repository.archiver import Archiver, BackupResult
from snappy.repository.blocks import SMALLEST_BLOCK
from snappy.repository.repo import Repository
from snappy.repository.restorer import Restorer, RestoreResult
from snappy.repository.snapshots import Snapshot
from snappy.sources.plugins import rbd_cluster, rbd_disk
from snappy.sources.plugins.rbd import RbdOptions, RbdRestore, RbdSource
from snappy.sources.plugins.rbd_cluster import module
from snappy.sources.site import Site
from tests.support import engine
from tests.support.ceph import POOL, Ceph, running

pytestmark = pytest.mark.ceph

MIB = 1 << 20
SIZE = 24 * MIB
OBJECT = 4 * MIB


@pytest.fixture(scope="module")
def cluster() -> Iterator[Ceph]:
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as started:
        yield started


@pytest.fixture
def ceph(cluster: Ceph) -> Ceph:
    cluster.remove_all()
    return cluster


@pytest.fixture
def repository() -> Iterator[Repository]:
    with engine.new_repository() as made:
        yield made


def site(ceph: Ceph, **settings: Any) -> Site:
    return Site("north", {"rbd": {"default": ceph.settings(**settings)}})


def back_up(
    repository: Repository,
    ceph: Ceph,
    parent: Snapshot | None = None,
    *,
    image: str = "one",
    fails: bool = False,
    chain: str = "main",
) -> BackupResult:
    async def run() -> BackupResult:
        source = RbdSource(RbdOptions(pool=POOL, image=image, chain=chain), site(ceph))
        async with source.snap() as frozen:
            archiver = Archiver(repository, parent=parent)
            done = await asyncio.to_thread(
                archiver.backup, source.export(frozen), paths=source.claims(), hostname="host-a"
            )
            if fails:
                raise SourceError("the target is full")
            return done

    return asyncio.run(run())


def bring_back(repository: Repository, ceph: Ceph, snapshot: Snapshot, **options: Any) -> RestoreResult:
    chosen = RbdRestore(pool=POOL, **options)
    sink = RbdSource.import_(chosen, RbdSource.restore_claims(chosen, site(ceph)), site(ceph))
    try:
        return Restorer(repository, sink).restore(snapshot)
    finally:
        sink.close()


def filled(ceph: Ceph, name: str = "one", size: int = SIZE, **how: Any) -> None:
    """An image with noise at its beginning and in its third object."""
    ceph.create(name, size, **how)
    write(ceph, (0, noise(300_000)), (2 * OBJECT + 5, noise(MIB)), name=name)


def write(ceph: Ceph, *writes: tuple[int, bytes], name: str = "one") -> None:
    with ceph.image(name) as image:
        for offset, data in writes:
            image.write(data, offset)


def content(ceph: Ceph, name: str = "one") -> bytes:
    with ceph.image(name, read_only=True) as image:
        found: bytes = image.read(0, image.size())
        return found


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def expect_same(repository: Repository, ceph: Ceph, done: BackupResult, expected: bytes) -> None:
    bring_back(repository, ceph, done.snapshot, image="back", overwrite=True)
    assert content(ceph, "back") == expected


def test_only_what_changed_is_read_and_one_snapshot_stays(repository: Repository, ceph: Ceph) -> None:
    filled(ceph)
    first = back_up(repository, ceph)
    assert first.warnings == []
    assert first.bytes_read < 2 * MIB
    [kept] = ceph.snapshots("one")
    assert kept.startswith("snappy-north-main-")
    write(ceph, (5 * OBJECT, noise(1000)), (7, b"changed"))
    second = back_up(repository, ceph, first.snapshot)
    assert second.bytes_read < 2 * SMALLEST_BLOCK + 1000
    assert len(ceph.snapshots("one")) == 1
    assert ceph.snapshots("one") != [kept]
    expect_same(repository, ceph, second, content(ceph))
    filled(ceph, "as before")
    expect_same(repository, ceph, first, content(ceph, "as before"))


def test_what_was_done_to_the_image_meanwhile_is_seen(repository: Repository, ceph: Ceph) -> None:
    filled(ceph)
    done = back_up(repository, ceph)
    with ceph.image("one") as image:
        image.discard(2 * OBJECT, OBJECT)
        image.write_zeroes(100_000, 100_000)
    done = back_up(repository, ceph, done.snapshot)
    expect_same(repository, ceph, done, content(ceph))
    with ceph.image("one") as image:
        image.resize(OBJECT // 2 + 512)
        image.resize(SIZE + 3 * MIB)
    write(ceph, (SIZE + MIB, b"beyond the old end"))
    done = back_up(repository, ceph, done.snapshot)
    expect_same(repository, ceph, done, content(ceph))
    with ceph.image("one") as image:
        image.resize(3 * MIB + 512)
    done = back_up(repository, ceph, done.snapshot)
    expect_same(repository, ceph, done, content(ceph))
    with ceph.image("one") as image:
        image.create_snap("mine")
        image.write(b"to be rolled back", 1000)
    done = back_up(repository, ceph, done.snapshot)
    with ceph.image("one") as image:
        image.rollback_to_snap("mine")
    done = back_up(repository, ceph, done.snapshot)
    expect_same(repository, ceph, done, content(ceph))


@pytest.mark.long
def test_an_image_that_was_made_anew_is_read_as_a_whole(repository: Repository, ceph: Ceph) -> None:
    filled(ceph)
    done = back_up(repository, ceph)
    ceph.remove_all()
    ceph.create("one", SIZE)
    write(ceph, (3 * OBJECT, b"another disk"))
    expect_same(repository, ceph, back_up(repository, ceph, done.snapshot), content(ceph))


@pytest.mark.long
def test_of_a_clone_all_is_there_though_little_was_written_to_it(repository: Repository, ceph: Ceph) -> None:
    filled(ceph, "parent")
    rbd = module("rbd")
    with ceph.image("parent") as image:
        image.create_snap("base")
        image.protect_snap("base")
    with ceph.pool() as ioctx:
        rbd.RBD().clone(ioctx, "parent", "base", ioctx, "one", rbd.RBD_FEATURE_LAYERING)
    write(ceph, (OBJECT, b"written to the clone"))
    done = back_up(repository, ceph)
    expect_same(repository, ceph, done, content(ceph))
    with ceph.image("one") as image:
        image.discard(2 * OBJECT, OBJECT)
        image.flatten()
    done = back_up(repository, ceph, done.snapshot)
    expect_same(repository, ceph, done, content(ceph))


@pytest.mark.long
def test_striped_images_and_those_without_an_object_map(repository: Repository, ceph: Ceph) -> None:
    rbd = module("rbd")
    features = rbd.RBD_FEATURE_LAYERING | rbd.RBD_FEATURE_STRIPINGV2
    filled(ceph, features=features, stripe_unit=64 << 10, stripe_count=3, order=20)
    first = back_up(repository, ceph)
    write(ceph, (11 * MIB, noise(5000)))
    second = back_up(repository, ceph, first.snapshot)
    expect_same(repository, ceph, second, content(ceph))
    with ceph.image("back", read_only=True) as image:
        assert (image.stripe_count(), image.stripe_unit(), image.stat()["order"]) == (3, 64 << 10, 20)
        assert image.features() == features


def test_nothing_stale_survives_a_restore_in_place(repository: Repository, ceph: Ceph) -> None:
    filled(ceph)
    before = content(ceph)
    done = back_up(repository, ceph)
    write(ceph, (0, noise(MIB)), (3 * OBJECT + 17, noise(2 * MIB)), (SIZE - 10, b"the end!!!"))
    with ceph.image("one") as image:
        image.resize(SIZE + OBJECT)
    with pytest.raises(BadOptions, match="exists"):
        bring_back(repository, ceph, done.snapshot, image="one")
    bring_back(repository, ceph, done.snapshot, image="one", overwrite=True)
    assert content(ceph) == before


def test_an_image_in_use_is_not_written_to(repository: Repository, ceph: Ceph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rbd_disk, "WATCH_SECONDS", 0.0)
    filled(ceph)
    done = back_up(repository, ceph)
    with ceph.image("one"), pytest.raises(SourceError, match="in use"):
        bring_back(repository, ceph, done.snapshot, image="one", overwrite=True)


def test_a_backup_that_fails_keeps_the_base_and_nothing_else(repository: Repository, ceph: Ceph) -> None:
    filled(ceph)
    first = back_up(repository, ceph)
    kept = ceph.snapshots("one")
    with pytest.raises(SourceError, match="full"):
        back_up(repository, ceph, first.snapshot, fails=True)
    assert ceph.snapshots("one") == kept
    assert back_up(repository, ceph, first.snapshot).bytes_read < 1000


@pytest.mark.long
def test_chains_do_not_disturb_each_other(repository: Repository, ceph: Ceph) -> None:
    filled(ceph)
    first = back_up(repository, ceph)
    back_up(repository, ceph, chain="weekly")
    assert len(ceph.snapshots("one")) == 2
    assert back_up(repository, ceph, first.snapshot).bytes_read < 1000


def test_what_the_dead_left_is_removed_and_what_lives_stays(repository: Repository, ceph: Ceph) -> None:
    filled(ceph)
    gone = f"snappy-north-main-{'0' * 32}-reading-1-{'a' * 16}-1"
    others = ["mine", f"snappy-south-main-{'0' * 32}-reading-1-{'a' * 16}-1", "snappy-north-main-nightly"]
    with ceph.image("one") as image:
        for name in (gone, *others):
            image.create_snap(name)
    ceph.create(f"snappy-unfinished-back-1-{'a' * 16}-1", MIB)
    ceph.create("snappy-unfinished-back-of-mine", MIB)
    done = back_up(repository, ceph)
    assert ceph.snapshots("one")[:-1] == others
    expect_same(repository, ceph, done, content(ceph))
    assert ceph.names() == ["back", "one", "snappy-unfinished-back-of-mine"]


def test_what_is_wrong_is_said(ceph: Ceph, repository: Repository, tmp_path: Path) -> None:
    async def snap(options: RbdOptions, **settings: Any) -> None:
        async with RbdSource(options, site(ceph, **settings)).snap():
            pass

    def attempt(image: str = "one", pool: str = POOL, **settings: Any) -> None:
        asyncio.run(snap(RbdOptions(pool=pool, image=image), **settings))

    with pytest.raises(SourceMissing, match="image rbd/nothing"):
        attempt("nothing")
    with pytest.raises(SourceMissing, match="pool nothing"):
        attempt(pool="nothing")
    with pytest.raises(BadOptions, match="may not name"):
        attempt(pools=["others"])
    with pytest.raises(SourceMissing):
        attempt(conf=str(tmp_path / "none"))
    wrong = tmp_path / "keyring"
    ceph.run("ceph-authtool", "--create-keyring", str(wrong), "--gen-key", "-n", "client.admin")
    with pytest.raises(SourceDenied):
        attempt(keyring=str(wrong))
    nobody = tmp_path / "ceph.conf"
    nobody.write_text("[global]\nmon host = [v1:127.0.0.1:9]\n")
    with pytest.raises(SourceUnavailable):
        attempt(conf=str(nobody), timeout=1)
    with pytest.raises(BadOptions, match="no name"):
        RbdSource(RbdOptions(pool=POOL, image="a/b"), site(ceph))


def test_a_machine_without_cephs_modules_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rbd_cluster, "MODULES", ("rados_of_nobody",))
    monkeypatch.setattr(rbd_cluster, "PACKAGES", os.fspath(tmp_path))
    with pytest.raises(ProgramMissing):
        module("rados_of_nobody")
    assert RbdSource.missing() == []
    monkeypatch.setattr(rbd_cluster, "MODULES", ("rados_of_nobody", "rbd"))
    monkeypatch.delitem(sys.modules, "rbd")
    assert "install your distribution's" in RbdSource.missing()[0]


def test_who_gives_up_need_not_wait(repository: Repository, ceph: Ceph) -> None:
    filled(ceph)
    done = back_up(repository, ceph)
    chosen = RbdRestore(pool=POOL, image="one", overwrite=True)
    sink = RbdSource.import_(chosen, RbdSource.restore_claims(chosen, site(ceph)), site(ceph))
    sink.interrupt()
    began = time.monotonic()
    with ceph.image("one"), pytest.raises(SourceError, match="in use"):
        Restorer(repository, sink).restore(done.snapshot)
    assert time.monotonic() - began < rbd_disk.WATCH_SECONDS / 2

    async def interrupted() -> None:
        source = RbdSource(RbdOptions(pool=POOL, image="one"), site(ceph))
        async with source.snap() as frozen:
            source.interrupt()
            frozen.allocated()

    with pytest.raises(SourceError, match="given up"):
        asyncio.run(interrupted())


@pytest.mark.long
def test_a_clone_that_is_written_over_shows_nothing_of_its_parent(repository: Repository, ceph: Ceph) -> None:
    ceph.create("small", 2 * OBJECT)
    write(ceph, (OBJECT + 9, b"all that there is"), name="small")
    done = back_up(repository, ceph, image="small")
    filled(ceph, "parent")
    rbd = module("rbd")
    with ceph.image("parent") as image:
        image.create_snap("base")
        image.protect_snap("base")
    with ceph.pool() as ioctx:
        rbd.RBD().clone(ioctx, "parent", "base", ioctx, "one", rbd.RBD_FEATURE_LAYERING)
    bring_back(repository, ceph, done.snapshot, image="one", overwrite=True)
    assert content(ceph) == content(ceph, "small")
    with ceph.image("one") as image:
        image.resize(SIZE)
    assert not any(content(ceph)[2 * OBJECT :])
