"""What a drill comes to, without a bus: what it proves, what it leaves, and how it ends where something is wrong."""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from snappy.config import DrillProgram
from snappy.errors import (
    BadOptions,
    Damaged,
    JobCancelled,
    NoSpace,
    NotProven,
    ProgramFailed,
    ProgramMissing,
    SnapshotNotFound,
)
from snappy.jobs.messages import Result
from snappy.jobs.upkeep import DrillCommand
from snappy.repository.format import MIB, BlobType
from snappy.repository.repo import Repository
from snappy.repository.restorer import Restorer
from snappy.repository.store import FileType, Store
from snappy.sources import drills
from snappy.sources.local_sink import LocalSink
from snappy.sources.restored_local_file import LocalFile
from snappy.sources.site import Site
from tests.support.backups import HOST, back_up
from tests.support.disks import Disk, disk
from tests.support.drills import NAMES, Drills, Hold
from tests.support.engine import PASSWORD, flip, memory_store, new_repository
from tests.support.odd_tree import make_odd_tree

SMALL = 20
NOBODY = 12345


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    top.mkdir()
    for number in range(SMALL):
        (top / f"small-{number}").write_bytes(b"%d" % number * 1000)
    (top / "large").write_bytes(os.urandom(2 * MIB))
    (top / "link").symlink_to("large")
    return top


@pytest.fixture
def store(tree: Path) -> Store:
    made = memory_store()
    with new_repository(made) as repository:
        back_up(repository, tree)
    return made


@pytest.fixture
def service(store: Store, tmp_path: Path) -> Drills:
    return Drills(store, tmp_path / "work")


async def test_all_of_the_newest_snapshot(service: Drills, store: Store) -> None:
    with Repository.open(store, PASSWORD) as repository:
        (snapshot,) = repository.snapshots()
    done = await service.run()
    assert (done.snapshot, done.host, done.paths) == (snapshot.id, HOST, snapshot.paths)
    assert (done.files, done.bytes_processed) == (SMALL + 1, 2 * MIB + sum(len(str(n)) for n in range(SMALL)) * 1000)
    assert (done.findings, done.warnings) == ([], [])
    assert done.drill
    assert (done.drill.sample, done.drill.faults) == ("", [])
    assert 0 < done.drill.first_byte <= done.drill.recovery
    assert done.drill.recovery + done.drill.proof < done.seconds
    assert service.left() == []
    assert store.list(FileType.LOCK) == []
    watched = service.progress  # each byte twice: brought, and compared
    assert (watched.files_done, watched.files_total) == (2 * (SMALL + 1), 2 * (SMALL + 1))
    assert watched.bytes_done == watched.bytes_total == 2 * done.bytes_processed


async def test_a_sample_is_told_with_its_seed(service: Drills, monkeypatch: pytest.MonkeyPatch) -> None:
    restored: list[set[bytes]] = []

    def noted(self: LocalSink, path: bytes, node: Any) -> LocalFile:
        restored[-1].add(path)
        return file(self, path, node)

    file = LocalSink.file
    monkeypatch.setattr(LocalSink, "file", noted)
    for seed in (7, 7, None, None):
        restored.append(set())
        done = await service.run(sample="10K", seed=seed)
        assert done.drill
        assert seed in (None, done.drill.seed)
        assert done.files == len(restored[-1]) < SMALL
        assert done.bytes_processed <= 10 << 10
    assert restored[0] == restored[1]
    assert restored[2] != restored[3]


async def test_a_share_of_it(service: Drills) -> None:
    done = await service.run(sample="50%", seed=1)
    assert done.bytes_processed >= MIB
    assert done.files < SMALL
    with pytest.raises(BadOptions, match="smaller than each"):
        await service.run(sample="10")
    assert service.left() == []


async def test_a_host_and_paths_choose_the_snapshot(service: Drills, store: Store, tree: Path) -> None:
    with Repository.open(store, PASSWORD) as repository:
        repository.load_index()
        back_up(repository, tree / "large")
        first, second = repository.snapshots()
    assert (await service.run()).snapshot == second.id
    assert (await service.run(paths=first.paths, host=HOST)).snapshot == first.id
    assert (await service.run(snapshot=first.id[:8])).snapshot == first.id


def damage(store: Store, size: int) -> tuple[str, str]:
    """Flip a bit in the blob of the file with that many bytes; the ids of blob and pack."""
    with Repository.open(store, PASSWORD) as repository:
        repository.load_index()
        (place,) = [
            place for place in repository.index if place.kind is BlobType.DATA and place.uncompressed_length == size
        ]
    flip(store, f"data/{place.pack.hex()[:2]}/{place.pack.hex()}", place.offset + 20)
    return place.id.hex(), place.pack.hex()


async def test_a_damaged_blob_makes_it_fail_by_name(service: Drills, store: Store, tree: Path) -> None:
    (tree / "other").write_bytes(b"other" * 321)
    with Repository.open(store, PASSWORD) as repository:
        repository.load_index()
        back_up(repository, tree)
    blob, pack = damage(store, 5 * 321)
    with pytest.raises(Damaged, match=r"1 objects of snapshot \w{8} cannot be restored; .*/other: ") as caught:
        await service.run()
    result: Result = caught.value.details["result"]
    assert blob in caught.value.message
    assert pack in caught.value.message
    assert [(found.kind, found.id) for found in result.findings] == [("blob-damaged", blob)]
    assert result.drill
    assert [(os.path.basename(fault.path), blob in fault.message) for fault in result.drill.faults] == [("other", True)]
    assert (result.drill.fault_count, result.files) == (1, SMALL + 1)
    assert service.left() == []


async def test_a_lost_root_is_named_too(service: Drills, store: Store) -> None:
    with Repository.open(store, PASSWORD) as repository:
        repository.load_index()
        (snapshot,) = repository.snapshots()
        (place,) = repository.locations(BlobType.TREE, snapshot.tree_id)
    flip(store, f"data/{place.pack.hex()[:2]}/{place.pack.hex()}", place.offset + 20)
    with pytest.raises(Damaged, match=snapshot.tree) as caught:
        await service.run(sample="5%")
    result: Result = caught.value.details["result"]
    assert (result.snapshot, [found.kind for found in result.findings]) == (snapshot.id, ["tree-damaged"])


async def test_a_directory_beside_the_sample_that_cannot_be_read_is_told(
    service: Drills, store: Store, tree: Path
) -> None:
    (tree / "below").mkdir()
    (tree / "below" / "file").write_bytes(b"x")
    with Repository.open(store, PASSWORD) as repository:
        repository.load_index()
        done = back_up(repository, tree)
        nodes = repository.load_tree(done.snapshot.tree_id)
        while not any(node.name == b"below" for node in nodes):
            assert nodes[0].subtree
            nodes = repository.load_tree(nodes[0].subtree)
        (lost,) = [node.subtree for node in nodes if node.name == b"below"]
        assert lost
        (place,) = repository.locations(BlobType.TREE, lost)
    flip(store, f"data/{place.pack.hex()[:2]}/{place.pack.hex()}", place.offset + 20)
    with pytest.raises(Damaged, match=lost.hex()) as caught:
        await service.run(sample="2K", seed=3)
    result: Result = caught.value.details["result"]
    assert result.drill
    assert [fault.path.rpartition("/")[2] for fault in result.drill.faults] == ["below"]


async def test_a_snapshot_that_is_removed_meanwhile_is_no_damage(
    service: Drills, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader has no lock: a forget and a prune may come."""

    def removed(*arguments: Any, **more: Any) -> Any:
        for kind in (FileType.SNAPSHOT, FileType.PACK):
            for name, _ in store.list(kind):
                store.remove(kind, name)
        return restore(*arguments, **more)

    restore = Restorer.restore
    monkeypatch.setattr(Restorer, "restore", removed)
    with pytest.raises(SnapshotNotFound, match="removed while it was drilled") as caught:
        await service.run()
    result: Result = caught.value.details["result"]
    assert (result.findings, result.drill and result.drill.faults) == ([], [])


async def test_what_comes_back_otherwise_is_not_proven(service: Drills, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository is whole: nobody is told that it is damaged."""

    def torn(self: LocalFile, offset: int, data: bytes) -> None:
        write(self, offset, data[:-1] + b"!" if len(data) == 2000 else data)

    write = LocalFile.write_at
    monkeypatch.setattr(LocalFile, "write_at", torn)
    with pytest.raises(NotProven, match=r"10 objects of snapshot .* are not those of the blob") as caught:
        await service.run()
    result: Result = caught.value.details["result"]
    assert (result.findings, result.files) == ([], SMALL + 1 - 10)


async def test_a_cancelled_one_leaves_nothing(service: Drills, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: LocalFile, offset: int, data: bytes) -> None:
        service.hold.over = True
        write(self, offset, data)

    write = LocalFile.write_at
    monkeypatch.setattr(LocalFile, "write_at", stop)
    with pytest.raises(JobCancelled):
        await service.run()
    assert service.left() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Disk]:
    (tmp_path / "small").mkdir()
    with disk(tmp_path / "small", 8 * MIB) as made:
        yield made


@pytest.mark.loop
async def test_a_full_disk_says_so(service: Drills, store: Store, tree: Path, small_disk: Disk) -> None:
    (tree / "huge").write_bytes(os.urandom(9 * MIB))
    with Repository.open(store, PASSWORD) as repository:
        repository.load_index()
        back_up(repository, tree)
    service.work = small_disk.place
    with pytest.raises(NoSpace, match="no room for the drill") as caught:
        await service.run()
    assert "`work`" in caught.value.hint
    assert service.left() == []
    assert (await service.run(sample="1M")).files


# ---- programs --------------------------------------------------------------------------------------------------------

LOOK = """
import os, sys
[folder] = sys.argv[1:]
assert os.path.samefile(folder, os.getcwd())
assert len(os.environ["SNAPPY_SNAPSHOT"]) == 64
found = [name for _, _, names in os.walk(folder) for name in names]
assert "large" in found and len(found) == 22, found
"""


async def test_a_program_looks_at_what_came_back(service: Drills) -> None:
    service.runs(LOOK)
    done = await service.run(program="look")
    assert done.drill
    assert done.drill.program == "look"
    assert 0 < done.drill.program_seconds < done.seconds


async def test_a_program_that_is_not_content(service: Drills) -> None:
    service.runs("import sys; sys.exit('first line\\npage 7 is torn')")
    with pytest.raises(ProgramFailed, match=r"ended with code 1: first line / page 7 is torn") as caught:
        await service.run(program="look")
    result: Result = caught.value.details["result"]
    assert result.files == SMALL + 1
    assert service.left() == []


async def test_a_program_that_takes_too_long_is_ended_with_all_it_started(service: Drills, tmp_path: Path) -> None:
    code = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
print("waiting for a lock", file=sys.stderr, flush=True)
time.sleep(100)
"""
    service.runs(code, seconds=2.0)
    with pytest.raises(ProgramFailed, match="did not end within 2 seconds: waiting for a lock"):
        await service.run(program="look")
    assert_gone(int((tmp_path / "pid").read_text()))


async def test_what_a_program_leaves_running_is_ended(service: Drills, tmp_path: Path) -> None:
    code = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"], stderr=subprocess.DEVNULL)
open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
"""
    service.runs(code)
    assert (await service.run(program="look")).drill
    assert_gone(int((tmp_path / "pid").read_text()))


def assert_gone(pid: int) -> None:
    """A zombie that its new parent has not looked at yet is."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except FileNotFoundError:
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} still runs")


async def test_a_program_is_ended_with_its_drill(service: Drills, tmp_path: Path) -> None:
    service.runs("import time; time.sleep(100)")
    started: list[float] = []

    class Ending(Hold):
        def check(self) -> None:
            if list(service.work.glob("drill/snappy-*/restored/**/large")) and not started:
                started.append(time.monotonic())
            if started and time.monotonic() > started[0] + 1.0:
                raise JobCancelled

    service.hold = Ending()
    with pytest.raises(JobCancelled):
        await service.run(program="look")
    assert time.monotonic() < started[0] + 10
    assert service.left() == []


async def test_programs_are_the_services_own(service: Drills) -> None:
    with pytest.raises(BadOptions, match="no drill program 'look'") as caught:
        await service.run(program="look")
    assert "it has: none" in caught.value.hint
    service.programs["look"] = DrillProgram(["/no/such/program"])
    with pytest.raises(ProgramMissing):
        await service.run(program="look")


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can be somebody else")
def test_a_service_that_is_not_root_proves_and_removes_what_root_backed_up(tmp_path: Path) -> None:
    """Owners are not restored then, and directories that nobody may write in are in the way."""
    make_odd_tree(tmp_path / "odd")
    store = memory_store()
    with new_repository(store) as repository:
        files = back_up(repository, tmp_path / "odd").summary.files_new
    with tempfile.TemporaryDirectory() as work:
        os.chown(work, NOBODY, NOBODY)
        pid = os.fork()
        if not pid:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            service = Drills(store, Path(work))
            result = asyncio.run(service.run())
            is_well = bool(result.drill) and result.files == files and not service.left()
            os._exit(0 if is_well else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# ---- folders ---------------------------------------------------------------------------------------------------------


def test_only_what_drills_left_is_removed(tmp_path: Path) -> None:
    """An operator may have named a folder that holds something else, too."""
    for name in ("snappy-old/restored/closed", "mine", "snappy-"):
        (tmp_path / drills.FOLDER / name).mkdir(parents=True)
    (tmp_path / drills.FOLDER / "snappy-file").write_text("")
    closed = tmp_path / drills.FOLDER / "snappy-old" / "restored" / "closed"
    (closed / "file").write_text("x")
    closed.chmod(stat.S_IRUSR | stat.S_IXUSR)
    Site(work=str(tmp_path)).tidy(drills.FOLDER)
    left = {path.name for path in (tmp_path / drills.FOLDER).iterdir()}
    assert left == {".lock", "mine", "snappy-file"}
    Site(work=str(tmp_path / "nowhere")).tidy(drills.FOLDER)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"seed": 1}, "there is no sample"),
        ({"sample": "0%"}, "no part of the data"),
        ({"sample": "0G"}, "no part of the data"),
        ({"sample": "1/7"}, "regex"),
        ({"sample": "5%", "seed": 1 << 32}, "<= 4294967295"),
        ({"program": "/bin/sh"}, "regex"),
    ],
)
def test_commands_that_make_no_sense(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert({**NAMES, **fields}, DrillCommand)
