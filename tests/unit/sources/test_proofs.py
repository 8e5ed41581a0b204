"""What came back is compared with the snapshot, not with what the restore says: each kind of difference is found."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from snappy.repository.archiver import BackupResult
from snappy.repository.entries import Problem
from snappy.repository.format import BlobType
from snappy.repository.losses import Losses
from snappy.repository.progress import Progress
from snappy.repository.repo import Repository
from snappy.repository.restorer import RestoreResult
from snappy.repository.sample import Chosen
from snappy.repository.snapshot_walk import Selection
from snappy.sources.local_metadata import by_number
from snappy.sources.proofs import Proof, Prover
from tests.support.backups import back_up, bring_back, inside
from tests.support.engine import flip, forget, new_repository

OWNER = by_number if os.geteuid() == 0 else None
LARGE = 3_000_000
NOBODY = 12345


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "below").mkdir(parents=True)
    (top / "small").write_bytes(b"small")
    (top / "large").write_bytes(os.urandom(LARGE))
    (top / "zeros").write_bytes(bytes(LARGE))
    (top / "empty").write_bytes(b"")
    (top / "below" / "\udcff").write_bytes(b"no UTF-8")
    (top / "link").symlink_to("small")
    os.link(top / "small", top / "twin")
    os.mkfifo(top / "pipe")
    os.setxattr(top / "small", "user.colour", b"red")
    return top


class Restored:
    """A tree, its backup, and its restore."""

    def __init__(self, repository: Repository, tree: Path, place: Path) -> None:
        self.repository = repository
        self.made: BackupResult = back_up(repository, tree)
        self.place = place
        self.done: RestoreResult = bring_back(repository, self.made.snapshot, place)
        self.top = inside(place, tree)

    def prove(self, selection: Selection | None = None, done: RestoreResult | None = None) -> Proof:
        prover = Prover(
            Losses(self.repository),
            os.fsencode(os.path.realpath(self.place)),
            done or self.done,
            owner=OWNER,
            progress=Progress(),
        )
        return prover.prove(self.made.snapshot, selection or Selection())


@pytest.fixture
def restored(tree: Path, tmp_path: Path) -> Restored:
    return Restored(new_repository(), tree, tmp_path / "back")


def test_all_is_as_it_was(restored: Restored) -> None:
    proof = restored.prove()
    assert (proof.faults, proof.fault_count, proof.findings) == ([], 0, [])
    assert (proof.files, proof.directories) == (6, restored.done.directories)
    assert proof.bytes == 2 * LARGE + 2 * len(b"small") + len(b"no UTF-8")


def rewritten(path: Path, change: Callable[[bytearray], None]) -> None:
    """Other bytes, and nothing else."""
    found = path.stat()
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(bytes(data))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def flip_last(data: bytearray) -> None:
    data[-1] ^= 1


def swap_type(top: Path) -> None:
    (top / "empty").unlink()
    (top / "empty").mkdir()


def swap_link(top: Path) -> None:
    (top / "link").unlink()
    (top / "link").symlink_to("large")


def part_twins(top: Path) -> None:
    found = (top / "twin").stat()
    (top / "twin").unlink()
    (top / "twin").write_bytes(b"small")
    os.utime(top / "twin", ns=(found.st_atime_ns, found.st_mtime_ns))


def retime(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 3_000_000_000))


PLANTS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a bit": (lambda top: rewritten(top / "large", flip_last), "large", r"bytes from \d+ on are not those of the blob"),
    "a bit in what is all zeros": (lambda top: rewritten(top / "zeros", flip_last), "zeros", "are not those of the"),
    "cut short": (lambda top: rewritten(top / "large", lambda data: data.pop()), "large", "are not those of the blob"),
    "too long": (lambda top: rewritten(top / "large", lambda data: data.append(0)), "large", r"has 3000001 bytes, not"),
    "not empty": (lambda top: rewritten(top / "empty", lambda data: data.append(0)), "empty", "has 1 bytes, not 0"),
    "gone": (lambda top: (top / "large").unlink(), "large", r"it is not there$"),
    "gone, a link": (lambda top: (top / "link").unlink(), "link", r"it is not there$"),
    "type": (swap_type, "empty", "of the type dir, not file"),
    "target": (swap_link, "link", "leads to large, not to small"),
    "hard link": (part_twins, "twin", "is a file of its own, not another name of .*small"),
    "mode": (lambda top: (top / "large").chmod(0o604), "large", "its mode is 604, not "),
    "mode of a directory": (lambda top: (top / "below").chmod(0o711), "below", "its mode is 711, not "),
    "time": (lambda top: retime(top / "large"), "large", "it was changed at"),
    "time of a directory": (lambda top: retime(top / "below"), "below", "it was changed at"),
    "attribute": (lambda top: os.setxattr(top / "small", "user.colour", b"blue"), "small", "attribute user.colour"),
    "no attribute": (lambda top: os.removexattr(top / "small", "user.colour"), "small", "attribute user.colour"),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_difference_is_found(restored: Restored, plant: str) -> None:
    change, name, words = PLANTS[plant]
    above = restored.top.stat()
    change(restored.top)
    os.utime(restored.top, ns=(above.st_atime_ns, above.st_mtime_ns))
    proof = restored.prove()
    faults = {os.path.basename(os.fsdecode(fault.path)): fault.message for fault in proof.faults}
    assert re.search(words, faults.pop(name)), proof.faults
    assert not faults or (name == "small" and set(faults) == {"twin"})
    assert proof.findings == []  # the repository is not to blame


@pytest.mark.skipif(os.geteuid() != 0, reason="only root restores owners")
def test_an_owner_is_found(restored: Restored) -> None:
    os.chown(restored.top / "large", 12345, 54321)
    (fault,) = restored.prove().faults
    assert fault.message.startswith("its owner is 12345:54321, not ")


def test_what_the_restore_could_not_keep_is_no_fault(restored: Restored) -> None:
    (restored.top / "large").chmod(0o604)
    path = os.fsencode(restored.top / "large").removeprefix(os.fsencode(restored.place))
    told = RestoreResult(0, 0, 0, 0, [Problem(path, "its mode cannot be set")], 1, [], 0)
    assert restored.prove(done=told).faults == []
    rewritten(restored.top / "large", flip_last)
    assert "are not those" in restored.prove(done=told).faults[0].message


def test_times_may_be_as_coarse_as_a_disk_keeps_them(restored: Restored) -> None:
    found = (restored.top / "large").stat()
    os.utime(restored.top / "large", ns=(0, found.st_mtime_ns // 1000 * 1000))
    assert restored.prove().faults == []


def blob_of(restored: Restored, size: int) -> bytes:
    """One of the file that has so many bytes."""
    (place,) = [
        place
        for place in restored.repository.index
        if place.kind is BlobType.DATA and size in (place.uncompressed_length, place.length - 32)
    ]
    return place.id


def test_a_lost_blob_is_named_with_its_pack(tree: Path, tmp_path: Path) -> None:
    restored = Restored(new_repository(), tree, tmp_path / "first")
    blob = blob_of(restored, len(b"no UTF-8"))
    (place,) = restored.repository.locations(BlobType.DATA, blob)
    flip(restored.repository.store, f"data/{place.pack.hex()[:2]}/{place.pack.hex()}", place.offset + 3)
    restored.place = tmp_path / "second"
    done = bring_back(restored.repository, restored.made.snapshot, restored.place)
    proof = restored.prove(done=done)
    (fault,) = proof.faults
    assert fault.path.endswith(b"/\xff")
    assert blob.hex() in fault.message
    assert place.pack.hex() in fault.message
    ((finding),) = proof.findings
    assert (finding.kind.value.name, finding.id) == ("blob-damaged", blob.hex())
    assert proof.files == 5


def test_a_blob_in_no_index_and_a_directory_that_cannot_be_read(tree: Path, tmp_path: Path) -> None:
    restored = Restored(new_repository(), tree, tmp_path / "first")
    blob = blob_of(restored, len(b"no UTF-8"))
    forget(restored.repository, BlobType.DATA, blob)
    restored.place = tmp_path / "second"
    done = bring_back(restored.repository, restored.made.snapshot, restored.place)
    (fault,) = restored.prove(done=done).faults
    assert f"it is not there: the data blob {blob.hex()} is in no index" == fault.message
    for place in list(restored.repository.index):
        if place.kind is BlobType.TREE and place.id != restored.made.snapshot.tree_id:
            forget(restored.repository, BlobType.TREE, place.id)
    proof = restored.prove(done=done)
    assert [finding.kind.value.name for finding in proof.findings] == ["tree-missing"]
    assert proof.findings[0].id in proof.faults[0].message


def test_of_a_sample_only_that_is_compared(restored: Restored) -> None:
    paths = [os.fsencode(restored.top / name).removeprefix(os.fsencode(restored.place)) for name in ("small", "empty")]
    (restored.top / "large").unlink()
    proof = restored.prove(Chosen(dict.fromkeys(paths, 1)))
    assert [fault.message[:14] for fault in proof.faults] == ["it was changed"]  # the directory
    assert (proof.files, proof.bytes) == (2, 5)


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can be somebody else")
def test_what_its_own_mode_forbids_is_read_all_the_same(tmp_path: Path) -> None:
    """By who is not root: what came back is ours, and goes anyway."""
    repository = new_repository()
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "secret").write_bytes(b"secret")
    for name in ("closed/secret", "closed"):
        (tmp_path / name).chmod(0o000)
    made = back_up(repository, tmp_path / "closed")
    with tempfile.TemporaryDirectory() as place:
        os.chown(place, NOBODY, NOBODY)
        pid = os.fork()
        if not pid:
            os.setresuid(NOBODY, NOBODY, NOBODY)
            done = bring_back(repository, made.snapshot, place, owners="never")
            prover = Prover(Losses(repository), os.fsencode(place), done, owner=None, progress=Progress())
            os._exit(0 if prover.prove(made.snapshot, Selection()).files == 1 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
