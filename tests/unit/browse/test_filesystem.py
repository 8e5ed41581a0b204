"""Snapshots as an fsspec filesystem: the source's bytes at any offset, its metadata, and no more fetched than asked."""

from __future__ import annotations

import csv
import io
import os
import random
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from snappy.browse.filesystem import MissingSnapshot, ReadOnly, SnapshotFileSystem
from snappy.errors import Damaged, UsageError, WrongPassword
from snappy.repository.browsable import DirectoryThere, MissingPath, NoDirectory, NoFile
from snappy.repository.entries import Node
from snappy.repository.format import BlobType
from snappy.repository.repo import Repository
from snappy.repository.stored_file import WINDOW
from tests.support import engine
from tests.support.backups import back_up
from tests.support.odd_tree import HOLE, make_odd_tree
from tests.support.random_reads import random_reads
from tests.support.snapshots import save_snapshot


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("source") / "tree"
    make_odd_tree(top)
    return Path(os.path.realpath(top))


@pytest.fixture(scope="module")
def place(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository on disk with a backup of the tree."""
    place = tmp_path_factory.mktemp("repository")
    store = engine.Store(fsspec.filesystem("file", auto_mkdir=True), str(place))
    with engine.new_repository(store) as repository:
        back_up(repository, tree)
    return place


@pytest.fixture
def fs(place: Path) -> SnapshotFileSystem:
    return fsspec.filesystem("snappy-snapshot", repository=str(place), password=engine.PASSWORD)


@pytest.fixture
def top(tree: Path) -> str:
    return f"latest{tree}"


@pytest.fixture
def repository() -> Iterator[Repository]:
    with engine.new_repository() as made:
        yield made


def over(repository: Repository) -> SnapshotFileSystem:
    return SnapshotFileSystem(library=engine.reopened(repository))


class Counting(engine.PrivateMemory):
    """Counts the bytes that are read."""

    read = 0

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        data: bytes = super().cat_file(path, start=start, end=end, **kwargs)
        self.read += len(data)
        return data


# Bytes


def test_any_range_of_any_file_is_the_sources(fs: SnapshotFileSystem, tree: Path, top: str) -> None:
    for below, offset, length, wanted in random_reads(tree, seed=5):
        assert fs.cat_file(f"{top}/{below}", offset, offset + length) == wanted, (below, offset, length)


def test_a_whole_tree_is_fetched(fs: SnapshotFileSystem, tree: Path, top: str, tmp_path: Path) -> None:
    fs.get(f"{top}/a", str(tmp_path / "got"), recursive=True)
    assert (tmp_path / "got" / "large too").read_bytes() == (tree / "large").read_bytes()
    assert (tmp_path / "got" / "deep" / "er" / "file").read_bytes() == b"deep"


def test_a_hole_reads_as_zeros(fs: SnapshotFileSystem, tree: Path, top: str) -> None:
    assert fs.cat_file(f"{top}/sparse", 4, 4000) == bytes(3996)
    assert fs.cat_file(f"{top}/sparse", -10) == bytes(10)
    assert fs.cat_file(f"{top}/sparse") == (tree / "sparse").read_bytes()


def test_an_open_file_reads_seeks_and_iterates(fs: SnapshotFileSystem, tree: Path, top: str) -> None:
    wanted = (tree / "large").read_bytes()
    with fs.open(f"{top}/large") as file:
        assert file.size == len(wanted)
        assert file.read(10) == wanted[:10]
        assert file.seek(-5, os.SEEK_END) == len(wanted) - 5
        assert file.read() == wanted[-5:]
        file.seek(HOLE)
        assert file.read(100_000) == wanted[HOLE:][:100_000]
        file.seek(0)
        assert next(file) == wanted[: wanted.index(b"\n") + 1]


def test_any_program_that_speaks_fsspec_reads_from_a_backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "vault"
    table = tmp_path / "table.csv"
    table.write_text("site,bytes\nnorth,1\nsouth,2\n")
    (tmp_path / "password").write_text(engine.PASSWORD)
    (tmp_path / "password").chmod(0o600)
    store = engine.Store(fsspec.filesystem("file", auto_mkdir=True), str(place))
    with engine.new_repository(store) as made:
        back_up(made, table)
    url = f"snappy-snapshot:///latest{table}"
    with fsspec.open(url, "rt", repository=str(place), password_file=str(tmp_path / "password")) as file:
        assert list(csv.DictReader(file)) == [{"site": "north", "bytes": "1"}, {"site": "south", "bytes": "2"}]
    monkeypatch.setenv("SNAPPY_PASSWORD", engine.PASSWORD)
    with fsspec.open(f"{url}::file://{place}", "rt") as file:
        assert file.readline() == "site,bytes\n"
    assert [file.path for file in fsspec.open_files(f"snappy-snapshot:///latest{tmp_path}/*.csv::file://{place}")] == [
        f"latest{table}"
    ]


def test_a_small_read_fetches_the_blobs_that_hold_it_and_no_more() -> None:
    storage = Counting()
    noise = random.Random(7).randbytes(40 << 20)
    with engine.new_repository(engine.memory_store(storage)) as repository:
        save_file(repository, noise)
    fs = over(repository)
    assert fs.info("latest/file")["size"] == len(noise)
    storage.read = 0
    assert fs.cat_file("latest/file", 20 << 20, (20 << 20) + 65_536) == noise[20 << 20 :][:65_536]
    assert 65_536 <= storage.read < 16 << 20
    before = storage.read
    assert fs.cat_file("latest/file", (20 << 20) + 100, (20 << 20) + 200) == noise[(20 << 20) + 100 :][:100]
    assert storage.read == before


def test_a_long_stream_is_whole_and_in_order(repository: Repository) -> None:
    noise = random.Random(8).randbytes(2 * WINDOW + 12_345)
    save_file(repository, noise)
    stored = over(repository).view.file(over(repository).view.tree("latest").file(b"file"))
    assert b"".join(stored.stream()) == noise
    assert b"".join(stored.stream(5, WINDOW + 7)) == noise[5 : WINDOW + 7]
    assert stored.read(10, len(noise)) == noise[10:]
    assert stored.read(len(noise) + 1, 5) == b""


def test_many_threads_read_one_file(repository: Repository) -> None:
    noise = random.Random(3).randbytes(12 << 20)
    save_file(repository, noise)
    fs = over(repository)
    wrong: list[int] = []

    def read(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(40):
            at = chance.randrange(len(noise))
            if fs.cat_file("latest/file", at, at + 50_000) != noise[at : at + 50_000]:
                wrong.append(at)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_blob_that_two_ask_for_is_fetched_once_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Counting()
    with engine.new_repository(engine.memory_store(storage)) as repository:
        save_file(repository, random.Random(4).randbytes(3 << 20))
    fs = over(repository)
    monkeypatch.setattr(fs.view._shelf, "_room", 1)
    fs.cat_file("latest/file")
    assert len(fs.view._shelf._kept) == 1


def test_damage_is_an_error_where_it_lies_and_nowhere_else(repository: Repository) -> None:
    noise = random.Random(6).randbytes(30 << 20)
    save_file(repository, noise)
    fs = over(repository)
    blobs = fs.view.tree("latest").file(b"file").content
    assert blobs
    engine.forget(fs.view.library, BlobType.DATA, blobs[-1])
    with pytest.raises(Damaged, match="is in no index"):
        fs.cat_file("latest/file", 0, 10)
    other = over(repository)
    place = other.view.library.location(BlobType.DATA, blobs[-1])
    assert place
    engine.flip(repository.store, f"data/{place.pack.hex()[:2]}/{place.pack.hex()}", place.offset + 40)
    assert other.cat_file("latest/file", 0, 10) == noise[:10]
    for _ in range(2):
        with pytest.raises(Damaged):
            other.cat_file("latest/file", -10)


def save_file(repository: Repository, data: bytes) -> None:
    content = [repository.save_blob(BlobType.DATA, part).id for part in repository.chunks(io.BytesIO(data))]
    tree = repository.save_tree([Node(name=b"file", type="file", size=len(data), content=content)])
    repository.flush()
    save_snapshot(repository, tree.id)


# Metadata


def test_info_says_what_lstat_said(fs: SnapshotFileSystem, tree: Path, top: str) -> None:
    shown = {entry["name"].removeprefix(top + "/"): entry for entry in fs.ls(top)}
    for path in tree.iterdir():
        found = path.lstat()
        entry = shown.pop(os.fsencode(path.name).decode("utf-8", "surrogateescape"))
        assert entry["mode"] == found.st_mode, path
        assert (entry["uid"], entry["gid"]) == (found.st_uid, found.st_gid)
        assert entry["mtime"] == pytest.approx(found.st_mtime, abs=1e-6, rel=0)
        if not path.is_dir() or path.is_symlink():
            assert (entry["size"], entry["nlink"]) == (found.st_size, found.st_nlink), path
        assert entry["islink"] == path.is_symlink()
        if path.is_symlink():
            assert entry["destination"] == os.readlink(os.fsencode(path)).decode("utf-8", "surrogateescape")
        assert fs.info(entry["name"]) == entry
    assert shown == {}


def test_types(fs: SnapshotFileSystem, top: str) -> None:
    assert fs.isdir(top)
    assert fs.isfile(f"{top}/one")
    assert fs.info(f"{top}/link")["type"] == "link"
    assert fs.info(f"{top}/fifo")["type"] == "other"
    assert stat.S_ISFIFO(fs.info(f"{top}/fifo")["mode"])
    assert fs.info(f"{top}/one")["ino"] == fs.info(f"{top}/one more")["ino"]
    assert fs.modified(f"{top}/one").year == 2009


def test_links_are_followed_inside_the_snapshot(fs: SnapshotFileSystem, top: str) -> None:
    assert fs.cat_file(f"{top}/link") == b"1"
    assert fs.cat_file(f"{top}/up/tree/one") == b"1"
    assert f"{top}/up/tree" in fs.ls(f"{top}/up", detail=False)
    with pytest.raises(FileNotFoundError, match="nearest that it has"):
        fs.cat_file(f"{top}/dangling")
    with pytest.raises(FileNotFoundError, match="more than 40 links"):
        fs.cat_file(f"{top}/loop")


def test_an_absolute_link_begins_at_the_snapshots_root(repository: Repository) -> None:
    tree = repository.save_tree(
        [
            Node(name=b"here", type="symlink", link_target=b"/../../there/."),
            Node(name=b"there", type="file", size=0, content=[]),
        ]
    )
    repository.flush()
    save_snapshot(repository, tree.id)
    assert over(repository).cat_file("latest/here") == b""


def test_names_that_are_no_utf8_lead_back(fs: SnapshotFileSystem, top: str) -> None:
    (odd,) = [entry["name"] for entry in fs.ls(top) if "\udcff not" in entry["name"]]
    assert fs.cat_file(odd) == b"\xff not \xfe UTF-8"


def test_walk_and_find_do_not_leave_or_loop(fs: SnapshotFileSystem, tree: Path, top: str) -> None:
    found = {os.path.relpath(name, top) for name in fs.find(top)}
    here = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_symlink() or not path.is_dir()}
    assert found == here


def test_the_root_lists_snapshots(fs: SnapshotFileSystem) -> None:
    (only,) = fs.ls("")
    assert only["type"] == "directory"
    assert fs.ls(only["name"], detail=False)
    assert fs.isdir("")


def test_a_directory_of_100_000_is_listed(repository: Repository) -> None:
    nodes = [Node(name=b"%06d" % number, type="file", size=number, content=[]) for number in range(100_000)]
    tree = repository.save_tree(nodes)
    repository.flush()
    save_snapshot(repository, tree.id)
    fs = over(repository)
    listed = fs.ls("latest")
    assert [entry["size"] for entry in listed] == list(range(100_000))
    assert fs.info("latest/099999")["size"] == 99_999


def test_a_hostile_name_is_not_shown(repository: Repository) -> None:
    names = (b"..", b"a/b", b"fine")
    tree = repository.save_tree([Node(name=name, type="file", size=0, content=[]) for name in names])
    repository.flush()
    save_snapshot(repository, tree.id)
    assert over(repository).ls("latest", detail=False) == ["latest/fine"]


# Errors, and what stays


def test_what_is_not_there_is_named_with_the_nearest(fs: SnapshotFileSystem, tree: Path, top: str) -> None:
    with pytest.raises(MissingPath, match=f"nearest that it has is {tree}/a"):
        fs.info(f"{top}/a/deeper/file")
    with pytest.raises(NoDirectory):
        fs.info(f"{top}/one/file")
    assert not fs.exists(f"{top}/one/file")
    assert not fs.exists("ffff/etc")
    with pytest.raises(MissingSnapshot):
        fs.info("ffff/etc")
    with pytest.raises(DirectoryThere):
        fs.cat_file(top)
    with pytest.raises(NoFile):
        fs.cat_file(f"{top}/fifo")


@pytest.mark.parametrize("change", ["rm", "mkdir", "touch", "makedirs", "rmdir", "rm_file"])
def test_nothing_is_changed(fs: SnapshotFileSystem, top: str, change: str) -> None:
    with pytest.raises(ReadOnly):
        getattr(fs, change)(f"{top}/one")
    with pytest.raises(PermissionError):
        fs.open(f"{top}/one", "wb")
    with pytest.raises(PermissionError):
        fs.pipe_file(f"{top}/new", b"")


def test_latest_stays_until_asked_anew(repository: Repository) -> None:
    save_file(repository, b"first")
    fs = over(repository)
    assert fs.cat_file("latest/file") == b"first"
    save_file(repository, b"later")
    assert fs.cat_file("latest/file") == b"first"
    fs.invalidate_cache()
    assert len(fs.ls("")) == 2


def test_what_opens_it_must_be_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="needs a repository"):
        SnapshotFileSystem()
    with pytest.raises(UsageError, match="not both"):
        fsspec.open("snappy-snapshot://latest/file", repository=str(place))
    monkeypatch.delenv("SNAPPY_PASSWORD", raising=False)
    with pytest.raises(UsageError, match="SNAPPY_PASSWORD"):
        SnapshotFileSystem(str(place)).ls("")
    with pytest.raises(WrongPassword):
        SnapshotFileSystem(str(place), password="wrong").ls("")
