"""What every place to keep repositories in must do, asked of each on its real server."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from snappy.bus.failures import to_wire
from snappy.errors import AlreadyExists
from snappy.repository.format import BlobType
from snappy.repository.pack_writer import Options
from snappy.repository.repo import Repository
from snappy.repository.store import FileType, Store
from snappy.targets import chores
from snappy.targets.drafts import PART_SUFFIX
from snappy.targets.opening import open_target
from snappy.targets.probing import probe
from tests.support import sshd, target_grounds, tools
from tests.support.disks import disk
from tests.support.engine import CHEAP, OWNER, PASSWORD
from tests.support.faults import Arena, arena, make_noise
from tests.support.target_grounds import CREATES_AT_ONCE, REPLACES_WHOLE, TargetGround

MIB = 1 << 20
GROUNDS = (
    pytest.param(target_grounds.on_sshd, id="sftp", marks=pytest.mark.sshd),
    pytest.param(target_grounds.on_seaweedfs, id="seaweedfs", marks=[pytest.mark.s3, pytest.mark.long]),
    pytest.param(target_grounds.on_radosgw, id="radosgw", marks=[pytest.mark.radosgw, pytest.mark.long]),
    pytest.param(target_grounds.on_swift, id="swift", marks=[pytest.mark.radosgw, pytest.mark.long]),
    pytest.param(target_grounds.on_webdav, id="webdav", marks=pytest.mark.webdav),
)
LARGE = os.urandom(9 * MIB + 17)
LARGE_NAME = f"data/ab/{hashlib.sha256(LARGE).hexdigest()}"


@pytest.fixture(params=GROUNDS)
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TargetGround]:
    with request.param(tmp_path) as made:
        yield made


def test_objects_come_and_go(ground: TargetGround) -> None:
    files = ground.open()
    assert files.find("") == []
    assert not files.exists("keys/odd name ü %20 #?")
    for name in ("keys/odd name ü %20 #?", "keys/b"):
        files.pipe_file(name, b"some bytes")
    files.pipe_file(LARGE_NAME, LARGE)
    assert files.find("") == sorted([LARGE_NAME, "keys/b", "keys/odd name ü %20 #?"])
    assert sorted(files.ls("keys", detail=False)) == ["keys/b", "keys/odd name ü %20 #?"]
    assert files.info(LARGE_NAME)["size"] == len(LARGE)
    assert files.cat_file(LARGE_NAME) == LARGE
    for start, end in ((0, 10), (5 * MIB - 3, 5 * MIB + 3), (len(LARGE) - 5, len(LARGE) + 5), (7, 7)):
        assert files.cat_file(LARGE_NAME, start, end) == LARGE[start:end]
    part = files.open_range(LARGE_NAME, 100, 5 * MIB)
    part.seek(100)
    assert part.read(MIB) == LARGE[100 : 100 + MIB]
    part.close()
    files.rm_file("keys/b")
    assert not files.exists("keys/b")
    with pytest.raises(FileNotFoundError):
        files.cat_file("keys/b")


def test_of_many_who_create_a_name_one_wins(ground: TargetGround) -> None:
    store = Store(ground.open(), "")

    def create(number: int) -> int | None:
        try:
            store.save(FileType.CONFIG, "config", bytes([number]), create=True)
        except AlreadyExists:
            return None
        return number

    with ThreadPoolExecutor(4) as pool:
        winners = [number for number in pool.map(create, range(4)) if number is not None]
    if CREATES_AT_ONCE in ground.lacks:
        assert winners, "of those at the same instant several may win"
        winners = [number for number in winners if bytes([number]) == store.load(FileType.CONFIG, "config")]
    assert [bytes([number]) for number in winners] == [store.load(FileType.CONFIG, "config")]
    with pytest.raises(AlreadyExists):
        store.save(FileType.CONFIG, "config", b"late", create=True)


def test_who_reads_sees_the_old_or_the_new(ground: TargetGround) -> None:
    files, versions = ground.open(), [bytes([number]) * (MIB + number) for number in range(6)]
    files.pipe_file("config", versions[0])

    def read() -> set[bytes]:
        return {found for _ in range(15) if (found := seen_now())}

    def seen_now() -> bytes:
        try:
            return files.cat_file("config")
        except FileNotFoundError:
            assert REPLACES_WHOLE in ground.lacks
            return b""

    with ThreadPoolExecutor(2) as pool:
        seen = [pool.submit(read) for _ in range(2)]
        for version in versions[1:]:
            files.pipe_file("config", version)
    assert files.cat_file("config") == versions[-1]
    assert set().union(*(each.result() for each in seen)) <= set(versions)


def test_an_append_only_place_keeps_what_it_has(ground: TargetGround) -> None:
    files = ground.open("rlw")
    files.pipe_file("config", b"first")
    for attempt in (lambda: files.pipe_file("config", b"second"), lambda: files.rm_file("config")):
        with pytest.raises(PermissionError):
            attempt()
    assert files.cat_file("config") == b"first"
    assert files.find("") == ["config"], "nothing of the second is left"


def test_a_server_that_is_killed_amid_a_write(ground: TargetGround) -> None:
    files = ground.open()
    files.pipe_file("config", b"before")
    draft = files.write(LARGE_NAME)
    draft.write(memoryview(LARGE)[: 6 * MIB])
    ground.stop()
    with pytest.raises(Exception) as caught:  # noqa: PT012  (botocore's are no OSError)
        draft.write(memoryview(LARGE)[6 * MIB :])
        draft.commit()
    assert to_wire(caught.value, LARGE_NAME).code == "unavailable"
    draft.discard()
    ground.start()
    assert files.find("") == ["config"]
    files.pipe_file(LARGE_NAME, LARGE)
    assert files.cat_file(LARGE_NAME) == LARGE


def test_a_probe_finds_all_that_a_target_needs(ground: TargetGround) -> None:
    files = ground.open()
    found = probe(files, MIB)
    assert found.will_do, found
    lacking = {each.name for each in found.findings if not each.can}
    assert lacking <= ground.lacks, "what it lacks it may by chance not have shown"
    assert files.find("") == []


def test_wrong_credentials_are_a_refusal(ground: TargetGround) -> None:
    with pytest.raises(OSError) as caught:
        ground.open(**ground.wrong).pipe_file("config", b"x")
    assert to_wire(caught.value, "config").code == "access-denied"


@pytest.fixture
def restic() -> str:
    program = tools.restic()
    assert program
    return program


@pytest.mark.restic
def test_a_repository_lives_there(ground: TargetGround, tmp_path: Path, restic: str) -> None:
    store = Store(ground.open(), "")
    blobs = [os.urandom(300_000) for _ in range(20)]
    with Repository.init(store, PASSWORD, cost=CHEAP, options=Options(pack_size=MIB)) as repository:
        with repository.lock(owner=OWNER):
            for data in blobs:
                repository.save_blob(BlobType.DATA, data)
            repository.flush()
        assert store.list(FileType.LOCK) == []
    with Repository.open(store, PASSWORD) as again:
        again.load_index()
        assert len(list(again.index)) == len(blobs)
        for pack in again.index.packs():
            wanted = [blob for blob in again.index if blob.pack == pack]
            assert {data for _, data in again.load_blobs(pack, wanted)} <= set(blobs)
    done = ground.place.restic(restic, PASSWORD, tmp_path / "cache").attempt("check", "--read-data")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def site(ground: TargetGround, tmp_path: Path) -> Iterator[Arena]:
    (tmp_path / "site").mkdir()
    with arena(tmp_path / "site", ground.place) as made:
        yield made


@pytest.mark.restic
@pytest.mark.long
@pytest.mark.timeout(400)
async def test_a_backup_whose_server_is_killed_and_comes_back(site: Arena, ground: TargetGround, restic: str) -> None:
    make_noise(site.data, 128 * MIB)
    files = ground.open()
    backup = await site.backup()
    await site.wait_state(backup, {"running"})
    while not await asyncio.to_thread(lambda: files.find("data")):
        await asyncio.sleep(0.02)
    ground.stop()
    assert (await site.record(backup))["state"] == "running", "it was over before the fault"
    ground.start()
    record = await site.succeeded(backup)
    await site.succeeded(await site.restore("all", record["result"]["snapshot"]))
    assert site.expect_same("all") == 128 * MIB
    site.expect_sound(restic)


@pytest.mark.parametrize("ground", [each for each in GROUNDS if each.id in ("sftp", "webdav")], indirect=True)
def test_what_a_killed_target_left_half_written_is_removed_a_day_later(ground: TargetGround) -> None:
    files = ground.open()
    files.pipe_file("keys/whole", b"whole")
    left = files.fs.draft(f"{files.root}/keys/half", exclusive=False)
    left.write(LARGE)
    left.settle()

    def there() -> list[str]:
        return sorted(str(item["name"]).rpartition("/")[2] for item in files.fs.listed(f"{files.root}/keys"))

    part, whole = there()
    assert (part.endswith(PART_SUFFIX), whole) == (True, "whole")
    for later, parts in ((0.0, [part]), (chores.ABANDONED_SECONDS + 60, [])):
        for chore in chores.chores(files.fs, files.root, clock=lambda later=later: time.time() + later):
            assert f"{files.root}/keys/whole" in list(chore)
        assert there() == [*parts, "whole"]


@pytest.mark.sshd
@pytest.mark.loop
def test_a_full_disk_behind_sftp_is_said(tmp_path: Path) -> None:
    (tmp_path / "sshd").mkdir()
    with disk(tmp_path, 16 * MIB) as small, sshd.running(tmp_path / "sshd") as server:
        files = open_target(server.url(small.place / "kept"), server.options, "rlwWd")
        files.pipe_file("config", b"before")
        room = small.room()
        with pytest.raises(OSError) as caught:
            files.pipe_file("keys/large", os.urandom(24 * MIB))
        assert to_wire(caught.value, "keys/large").code == "no-space"
        assert list(small.place.rglob(".*")) == [], "nothing half-written is left"
        assert small.room() > room - MIB, "nor open on the server, where it keeps its room"
        assert files.cat_file("config") == b"before"
