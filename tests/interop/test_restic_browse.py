"""What restic says of a repository, Snappy says too: ``ls``, ``find``, ``diff``, ``stats``, ``dump``."""

from __future__ import annotations

import io
import json
import os
import random
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest

from snappy.cli.main import main
from snappy.repository.format import BlobType
from snappy.repository.repo import Repository
from snappy.repository.store import Store
from tests.support import engine, tools, trees
from tests.support.backups import back_up
from tests.support.restic import Restic

Run = Callable[..., bytes]

pytestmark = pytest.mark.restic_newest


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    top = tmp_path_factory.mktemp("source") / "tree"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "FOLDERS", 6)
        trees.make_tree(top)
        yield Path(os.path.realpath(top))


@pytest.fixture(scope="module")
def place(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two snapshots of a tree that changed, and one of a part of it."""
    place = tmp_path_factory.mktemp("repository")
    with engine.new_repository(Store(fsspec.filesystem("file", auto_mkdir=True), str(place))) as repository:
        first = back_up(repository, tree)
        trees.change_tree(tree, 1)
        back_up(repository, tree, parent=first.snapshot)
        back_up(repository, tree / "many")
    return place


@pytest.fixture
def restic(place: Path, tmp_path: Path) -> Restic:
    return Restic(tools.newest_restic() or "", place, engine.PASSWORD, tmp_path / "cache")


@pytest.fixture
def snappy(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Run:
    monkeypatch.setenv("SNAPPY_PASSWORD", engine.PASSWORD)
    monkeypatch.setenv("SNAPPY_STATE_DIR", str(tmp_path / "state"))

    def run(*arguments: str | Path, code: int = 0) -> bytes:
        command, *rest = map(str, arguments)
        assert main([command, "--from", str(place), *rest]) == code
        return capsysbinary.readouterr().out

    return run


def documents(printed: bytes) -> list[Any]:
    return [json.loads(line) for line in printed.splitlines()]


def snapshots(place: Path) -> list[str]:
    with Repository.open(Store(fsspec.filesystem("file"), str(place)), engine.PASSWORD) as repository:
        return [each.id for each in repository.snapshots()]


@pytest.mark.parametrize("more", [(), ("--sort", "size"), ("--sort", "mtime", "--reverse"), ("--sort", "name")])
def test_ls_is_restics(place: Path, restic: Restic, snappy: Run, more: tuple[str, ...]) -> None:
    snapshot = snapshots(place)[1]
    ours, theirs = documents(snappy("ls", snapshot, "--json", *more)), restic.json("ls", snapshot, *more)
    assert len(ours) > 200
    assert ours[1:] == theirs[1:]
    assert ours[0]["id"] == theirs[0]["id"]


def test_ls_of_folders_is_restics(place: Path, restic: Restic, snappy: Run, tree: Path) -> None:
    snapshot = snapshots(place)[0]
    for more in ([tree], [tree / "a", tree / "many" / "folder 3"], [tree / "a", "--recursive"]):
        ours, theirs = documents(snappy("ls", "--json", snapshot, *more)), restic.json("ls", snapshot, *more)
        assert ours[1:] == theirs[1:]
        assert len(ours) > 2


def test_the_lines_of_ls_are_restics(place: Path, restic: Restic, snappy: Run, tree: Path) -> None:
    snapshot = snapshots(place)[0]
    ours, theirs = snappy("ls", "-l", snapshot, tree), restic.run("ls", "-l", snapshot, tree)
    assert ours.splitlines()[1:] == theirs.splitlines()[1:]
    assert snappy("ls", snapshot).splitlines()[1:] == restic.run("ls", snapshot).splitlines()[1:]


@pytest.mark.parametrize(
    "asked",
    [("file 1*",), ("FOLDER 2", "-i"), ("large", "fifo", "link"), ("a/deep",), ("/nothing",), ("one", "--reverse")],
    ids=str,
)
def test_find_is_restics(restic: Restic, snappy: Run, asked: tuple[str, ...]) -> None:
    (ours,) = documents(snappy("find", "--json", *asked))
    theirs = json.loads(restic.run("find", "--json", *asked))
    assert ours == theirs
    assert bool(ours) == (asked != ("/nothing",))


def test_the_lines_of_find_are_restics(restic: Restic, snappy: Run) -> None:
    for more in ((), ("-l", "--reverse")):
        assert snappy("find", "link", "one", *more) == restic.run("find", "link", "one", *more)


def test_find_by_time_host_and_snapshot_is_restics(place: Path, restic: Restic, snappy: Run) -> None:
    first, second, _ = snapshots(place)
    for more in (("--oldest", "2025-01-01"), ("--newest", "2025-01-01"), ("-s", first, "-s", second), ("-H", "nobody")):
        ours, theirs = (json.loads(each("find", "--json", "*e*", *more)) for each in (snappy, restic.run))
        assert ours == theirs


def objects_of(place: Path) -> dict[str, list[str]]:
    """Some trees, the first snapshot's root among them, some blobs of files, and all packs."""
    with Repository.open(Store(fsspec.filesystem("file"), str(place)), engine.PASSWORD) as repository:
        repository.load_index()
        found = sorted(repository.index, key=lambda place: place.id)
        trees = [place.id.hex() for place in found if place.kind is BlobType.TREE]
        blobs = [place.id.hex() for place in found if place.kind is BlobType.DATA]
        roots = [repository.snapshots()[0].tree, trees[0]]
        return {"tree": roots, "blob": blobs[:: len(blobs) // 6], "pack": sorted({place.pack.hex() for place in found})}


def test_find_by_id_is_restics(place: Path, restic: Restic, snappy: Run) -> None:
    """A tree in one snapshot: restic stops at the first place of the last tree that it looks for."""
    known, first = objects_of(place), snapshots(place)[0]
    cases = [["--tree", tree, "-s", first] for tree in known["tree"]]
    cases += [["--blob", *known["blob"]], ["--blob", *(blob[:8] for blob in known["blob"])], ["--pack", *known["pack"]]]
    for more in cases:
        ours, theirs = (json.loads(each("find", "--json", *more)) for each in (snappy, restic.run))
        if "--tree" in more:
            ours = ours[: len(theirs)]
        assert list(map(normal, ours)) == list(map(normal, theirs)), more
    assert len(theirs) > 50


def normal(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "time": datetime.fromisoformat(found["time"])}


def test_the_lines_of_find_by_id_are_restics(place: Path, restic: Restic, snappy: Run) -> None:
    known = objects_of(place)
    for more in (["--blob", *known["blob"]], ["--tree", known["tree"][0]], ["--pack", *known["pack"]]):
        assert snappy("find", *more) == restic.run("find", *more)
    more = ["--blob", "--show-pack-id", known["blob"][0]]
    ours, theirs = (each("find", *more).splitlines() for each in (snappy, restic.run))
    assert ours[:-1] == theirs[:-1]
    assert b"Object belongs to pack " in ours[-2]


@pytest.mark.parametrize("metadata", [(), ("--metadata",)], ids=["plain", "metadata"])
def test_diff_is_restics(place: Path, restic: Restic, snappy: Run, metadata: tuple[str, ...]) -> None:
    first, second, third = snapshots(place)
    for old, new in ((first, second), (second, first), (second, third), (first, first)):
        ours = documents(snappy("diff", "--json", old, new, *metadata))
        assert ours == restic.json("diff", old, new, *metadata)


def test_the_lines_of_diff_are_restics(place: Path, restic: Restic, snappy: Run) -> None:
    first, second, _ = snapshots(place)
    ours, theirs = (each.splitlines() for each in (snappy("diff", first, second), restic.run("diff", first, second)))
    assert ours[:-2] == theirs[:-2]


@pytest.mark.parametrize("mode", ["restore-size", "files-by-contents", "blobs-per-file", "raw-data"])
def test_stats_are_restics(place: Path, restic: Restic, snappy: Run, mode: str) -> None:
    for chosen in ([], ["latest"], snapshots(place)[:1]):
        (ours,) = documents(snappy("stats", "--json", "--mode", mode, *chosen))
        (theirs,) = restic.json("stats", "--mode", mode, *chosen)
        assert {**theirs, **ours} == pytest.approx({**ours, **theirs})
        assert {name for name, value in theirs.items() if value} <= set(ours)


def test_what_a_snapshot_alone_holds_is_what_is_left_without_it(place: Path, restic: Restic, snappy: Run) -> None:
    (each,) = documents(snappy("stats", "--json", "--mode", "alone"))
    ids = snapshots(place)
    assert [one["snapshot"] for one in each] == ids
    (whole,) = restic.json("stats", "--mode", "raw-data")
    for one in each:
        others = [other for other in ids if other != one["snapshot"]]
        (rest,) = restic.json("stats", "--mode", "raw-data", *others)
        assert one["size"] == whole["total_size"] - rest["total_size"]
        assert one["blobs"] == whole["total_blob_count"] - rest["total_blob_count"]
    assert each[0]["size"] > 0


def test_dump_of_a_directory_has_what_restics_has(place: Path, restic: Restic, snappy: Run, tree: Path) -> None:
    snapshot = snapshots(place)[0]
    ours, theirs = (tar_entries(each("dump", snapshot, tree)) for each in (snappy, restic.run))
    for name, (kind, *facts) in theirs.items():
        if kind == tarfile.REGTYPE and ours[name][0] in (tarfile.LNKTYPE, tarfile.FIFOTYPE, *b"34"):
            continue
        if kind in (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE) and ours[name][0] == kind:
            assert ours[name] == [kind, *facts], name
    assert set(ours) == set(theirs)
    assert len(ours) > 200


def tar_entries(archive: bytes) -> dict[str, list[Any]]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        for entry in opened:
            content = opened.extractfile(entry) if entry.isreg() else None
            xattrs = {name: value for name, value in entry.pax_headers.items() if name.startswith("SCHILY")}
            found[entry.name] = [
                entry.type,
                entry.mode,
                entry.uid,
                entry.gid,
                entry.linkname if entry.issym() else "",
                round(entry.mtime),
                xattrs,
                content.read() if content else b"",
            ]
    return found


def test_dump_as_zip_and_of_a_file(place: Path, restic: Restic, snappy: Run, tree: Path, tmp_path: Path) -> None:
    snapshot = snapshots(place)[0]
    assert snappy("dump", snapshot, "-a", "zip", "-t", tmp_path / "z", tree / "many") == b""
    with (
        zipfile.ZipFile(tmp_path / "z") as ours,
        zipfile.ZipFile(io.BytesIO(restic.run("dump", "-a", "zip", snapshot, tree / "many"))) as theirs,
    ):
        names = theirs.namelist()
        assert sorted(ours.namelist()) == sorted(names)
        for name in names:
            assert ours.read(name) == theirs.read(name)
            assert ours.getinfo(name).external_attr >> 16 == theirs.getinfo(name).external_attr >> 16
    assert snappy("dump", snapshot, tree / "large") == restic.run("dump", snapshot, tree / "large")


def test_cat_prints_files_and_what_restic_cats(place: Path, restic: Restic, snappy: Run, tree: Path) -> None:
    snapshot = snapshots(place)[1]
    chance = random.Random(1)
    files = [path for path in (tree / "many").rglob("*") if path.is_file()]
    some = [tree / "large", *chance.sample(files, 10)]
    assert snappy("cat", snapshot, *some) == b"".join(path.read_bytes() for path in some)
    assert snappy("cat", f"{snapshots(place)[0]}:{tree}", "link") == b"1"
    ours, theirs = (json.loads(each("cat", "snapshot", snapshot)) for each in (snappy, restic.run))
    assert ours["tree"] == theirs["tree"]
    spec = f"{snapshot}:{tree}/many"
    assert json.loads(snappy("cat", "tree", spec)) == json.loads(restic.run("cat", "tree", spec))
