"""What restic calls sound, a check calls sound; what one of them calls damaged, the other does too."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from snappy.repository.checker import Checker, CheckResult
from snappy.repository.format import BlobType
from snappy.repository.index import encode_index
from snappy.repository.pack_writer import Options
from snappy.repository.portion import EVERYTHING, Portion
from snappy.repository.repo import Repository
from snappy.repository.store import FileType, Store
from tests.support import tools
from tests.support.engine import CHEAP, PASSWORD
from tests.support.restic import Restic
from tests.support.snapshots import fill

Hurt = Callable[[Path], None]


@pytest.fixture
def restic(restic_program: str, tmp_path: Path) -> Restic:
    return Restic(restic_program, tmp_path / "repository", PASSWORD, tmp_path / "cache")


def store_of(folder: Path) -> Store:
    return Store(fsspec.filesystem("file"), str(folder))


def check(folder: Path, portion: Portion = EVERYTHING) -> CheckResult:
    with Repository.open(store_of(folder), PASSWORD) as repository:
        return Checker(repository).check(portion)


def made_by_snappy(folder: Path) -> None:
    store = store_of(folder)
    with Repository.init(store, PASSWORD, cost=CHEAP, options=Options(pack_size=8000)) as repository:
        fill(repository)


# ---- sound -----------------------------------------------------------------------------------------------------------


def test_what_restic_wrote_is_whole(restic: Restic, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "empty").mkdir(parents=True)
    for number in range(20):
        (source / f"{number} é").write_bytes(os.urandom(200_000) if number % 2 else b"text" * 50_000)
    (source / "link").symlink_to("nowhere")
    os.mkfifo(source / "pipe")
    restic.run("init")
    restic.run("backup", ".", cwd=source)
    (source / "more").write_bytes(os.urandom(3 << 20))
    restic.run("backup", ".", cwd=source)
    done = check(tmp_path / "repository")
    assert done.findings == []
    assert (done.snapshots, done.packs_read) == (2, done.packs)
    assert done.packs >= 4
    restic.check()


@pytest.mark.parametrize("version", ["1", "2"])
def test_after_restic_pruned_and_repacked(restic: Restic, tmp_path: Path, version: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    restic.run("init", "--repository-version", version)
    for number in range(3):
        (source / str(number)).write_bytes(os.urandom(300_000))
        (source / "same").write_text("text" * 1000 * number)
        restic.run("backup", ".", cwd=source)
        (source / str(number)).unlink()
    restic.run("forget", "--keep-last", "1", "--prune", "--max-unused", "0")
    assert check(tmp_path / "repository").findings == []
    restic.check()


# ---- damaged ---------------------------------------------------------------------------------------------------------


def largest_pack(folder: Path) -> Path:
    return max(folder.glob("data/*/*"), key=lambda path: path.stat().st_size)


def rewrite(path: Path, change: Callable[[bytearray], bytes | bytearray]) -> None:
    data = change(bytearray(path.read_bytes()))
    path.chmod(0o600)
    path.write_bytes(data)


def flipped(at: int) -> Callable[[bytearray], bytearray]:
    def change(data: bytearray) -> bytearray:
        data[at] ^= 1
        return data

    return change


def cut_in_two(folder: Path) -> None:
    """Two index files list a part of a pack each, as versions of Snappy before this one did."""
    store = store_of(folder)
    with Repository.open(store, PASSWORD) as repository:
        repository.load_index()
        places = list(repository.index)
        [(pack, blobs)] = Counter(place.pack for place in places if place.kind is BlobType.DATA).most_common(1)
        of_pack = [place for place in places if place.pack == pack]
        assert blobs > 1
        parts = [[place for place in places if place.pack != pack] + of_pack[:1], of_pack[1:]]
        old = store.list(FileType.INDEX)
        for part in parts:
            repository.documents.save(FileType.INDEX, encode_index(part))
        for name, _ in old:
            store.remove(FileType.INDEX, name)


DAMAGE: dict[str, Hurt] = {
    "a bit in a blob": lambda folder: rewrite(largest_pack(folder), flipped(50)),
    "a bit in a header": lambda folder: rewrite(largest_pack(folder), flipped(-30)),
    "a bit in a header's length": lambda folder: rewrite(largest_pack(folder), flipped(-1)),
    "a pack cut short": lambda folder: rewrite(largest_pack(folder), lambda data: data[:-7]),
    "a pack that is gone": lambda folder: largest_pack(folder).unlink(),
    "a bit in an index": lambda folder: rewrite(next(folder.glob("index/*")), flipped(40)),
    "an index that is gone": lambda folder: next(folder.glob("index/*")).unlink(),
    "a bit in a snapshot": lambda folder: rewrite(next(folder.glob("snapshots/*")), flipped(40)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_both_call_it_damaged(restic: Restic, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "repository"
    made_by_snappy(folder)
    DAMAGE[damage](folder)
    assert check(folder).failure() is not None
    assert restic.attempt("check", "--read-data").returncode != 0


@pytest.mark.restic_newest
def test_a_pack_cut_in_two_is_damage_to_the_newest_restic(tmp_path: Path) -> None:
    """The older one takes both parts together, and says nothing."""
    folder = tmp_path / "repository"
    newest = Restic(tools.newest_restic(), folder, PASSWORD, tmp_path / "cache")
    made_by_snappy(folder)
    cut_in_two(folder)
    assert [finding.kind.value.name for finding in check(folder).findings] == ["pack-listing"]
    done = newest.attempt("check")
    assert done.returncode != 0
    assert b"different data in indexes" in done.stdout + done.stderr


@pytest.mark.long
def test_both_judge_a_random_byte_alike(restic: Restic, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    made_by_snappy(folder)
    kinds = ("data/*/*", "index/*", "snapshots/*")
    files = sorted(path for kind in kinds for path in folder.glob(kind))
    chosen = random.Random(1)
    for _ in range(20):
        path = chosen.choice(files)
        at = chosen.randrange(path.stat().st_size)
        rewrite(path, flipped(at))
        ours, theirs = check(folder).failure() is not None, restic.attempt("check", "--read-data").returncode != 0
        rewrite(path, flipped(at))
        assert (ours, theirs) == (True, True), (path, at)
