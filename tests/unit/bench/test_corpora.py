from __future__ import annotations

import hashlib
import os
import random
import stat
from pathlib import Path

import pytest
import zstandard

from bench import contents
from bench.corpora import MIB, RECIPES, Corpus, copy_share, corpus, folder_of, pick, size_at

SCALES = {"tree": 0.002, "tiny": 0.001, "noise": 0.001, "image": 0.01, "million": 0.0002}


def state(folder: Path) -> dict[str, object]:
    """Of each file its mode, time of change and bytes, of each link its target, of each folder its time of change."""
    found = dict[str, object]()
    for path in folder.rglob("*"):
        name, seen = str(path.relative_to(folder)), path.lstat()
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_dir():
            found[name] = seen.st_mtime_ns
        elif path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[name] = (digest, seen.st_mode, seen.st_mtime_ns)
    return found


def digests(folder: Path) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def built(name: str, cache: Path) -> Corpus:
    made = corpus(name, cache, SCALES[name])
    made.build()
    return made


@pytest.mark.parametrize("name", RECIPES)
def test_two_builds_are_the_same(name: str, tmp_path: Path) -> None:
    one, other = built(name, tmp_path / "one"), built(name, tmp_path / "other")
    assert digests(one.data) == digests(other.data)
    assert [str(path.relative_to(one.data)) for path in sorted(one.data.rglob("*"))] == [
        str(path.relative_to(other.data)) for path in sorted(other.data.rglob("*"))
    ]


@pytest.mark.parametrize("name", ["tree", "tiny", "million"])
def test_a_tree_has_as_many_files_as_it_says(name: str, tmp_path: Path) -> None:
    made = built(name, tmp_path)
    files = [path for path in made.data.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) == made.count == round(RECIPES[name].count * SCALES[name])


@pytest.mark.parametrize("name", ["tree", "tiny", "million"])
def test_no_content_comes_twice(name: str, tmp_path: Path) -> None:
    made = built(name, tmp_path)
    large = [path for path in made.data.rglob("*") if path.is_file() and path.stat().st_size > 30]
    assert len({path.read_bytes() for path in large}) == len({path.resolve() for path in large})


def test_a_stamp_that_fits_spares_the_work(tmp_path: Path) -> None:
    made = built("tiny", tmp_path)
    (made.data / "0" / "0").write_bytes(b"another")
    made.build()
    assert (made.data / "0" / "0").read_bytes() == b"another"


def test_a_corpus_whose_stamp_does_not_fit_is_made_again(tmp_path: Path) -> None:
    made = built("tiny", tmp_path)
    (made.folder / "stamp.json").write_text('{"version": 0}')
    (made.data / "stray").touch()
    made.build()
    assert made.is_built()
    assert not (made.data / "stray").exists()


def test_changes_come_and_go(tmp_path: Path) -> None:
    made = corpus("tree", tmp_path, 0.02)
    made.build()
    before = state(made.data)
    with made.changed() as count:
        during = state(made.data)
        assert not made.is_built()
    assert state(made.data) == before
    assert made.is_built()
    others = {name for name in before if during.get(name) != before[name] and not (made.data / name).is_dir()}
    renamed = {name for name in during if name.endswith(".renamed")}
    assert count == len(others) == 12 + len(renamed)
    assert len(renamed) == 1
    assert {during[name] for name in renamed} == {before[name.removesuffix(".renamed")] for name in renamed}


def test_changes_that_were_cut_short_are_not_taken_for_the_corpus(tmp_path: Path) -> None:
    made = built("tiny", tmp_path)
    with pytest.raises(KeyboardInterrupt), made.changed():
        raise KeyboardInterrupt
    assert not made.is_built()


def test_a_disk_image_has_holes_and_written_zeros(tmp_path: Path) -> None:
    made = corpus("image", tmp_path, 0.05)
    made.build()
    path = made.data / "disk.img"
    found, content = path.stat(), path.read_bytes()
    assert found.st_size == made.count
    assert 0.1 < found.st_blocks * 512 / found.st_size < 0.9
    assert content.count(bytes(MIB)) * MIB > found.st_size - found.st_blocks * 512 - 64 * MIB


def test_a_tree_is_like_a_usr() -> None:
    files = [RECIPES["tree"].file(number) for number in range(0, 60_000, 10)]  # type: ignore[misc]
    assert 1.2e9 < 10 * sum(file.size for file in files) < 3.2e9
    assert sorted(file.size for file in files)[3000] == pytest.approx(2028, rel=0.1)
    assert {file.mode & stat.S_ISUID for file in files} == {0, stat.S_ISUID}
    assert {file.make for file in files} == {contents.text, contents.code, contents.noise}
    assert 5 < sum(file.path.count("/") for file in files) / len(files) < 8


def test_folders_lie_in_those_that_came_earlier() -> None:
    assert folder_of(0) == "folder 0"
    for number in range(1, 200):
        above, _, own = folder_of(number).rpartition("/")
        assert own == f"folder {number}"
        assert above in {folder_of(earlier) for earlier in range(number)}


@pytest.mark.parametrize(("make", "least", "most"), [("text", 3, 7), ("code", 1.8, 3.2), ("noise", 0.9, 1.1)])
def test_how_far_contents_can_be_compressed(make: str, least: float, most: float) -> None:
    made = getattr(contents, make)(random.Random(1), MIB)
    assert len(made) == MIB
    assert least < MIB / len(zstandard.compress(made, 3)) < most


@pytest.mark.parametrize("size", [0, 1, 47, 48, 191, 240, 4097])
@pytest.mark.parametrize("make", [contents.text, contents.code, contents.noise, contents.zeros])
def test_contents_are_as_long_as_asked(make: contents.Maker, size: int) -> None:
    assert len(make(random.Random(1), size)) == size


def test_sizes_grow_with_their_share() -> None:
    sizes = [size_at(share / 1000) for share in range(1001)]
    assert sizes == sorted(sizes)
    assert (sizes[500], sizes[950], sizes[-1]) == (2028, 54161, 32 * MIB)


def test_a_table_is_read_by_share() -> None:
    table = ((0.5, "half"), (0.9, "most"), (1.0, "rest"))
    assert [pick(table, share) for share in (0.0, 0.5, 0.51, 0.95, 1.0)] == ["half", "half", "most", "rest", "rest"]


def test_a_share_of_a_tree_is_some_of_its_files(tmp_path: Path) -> None:
    made = corpus("tree", tmp_path, 0.02)
    made.build()
    copies = copy_share(made.data, 0.2, tmp_path / "copies")
    whole = sum(path.stat().st_size for path in made.data.rglob("*") if path.is_file() and not path.is_symlink())
    assert sum(path.stat().st_size for path in copies.iterdir()) == pytest.approx(0.2 * whole, rel=0.2)
    assert digests(copies) < digests(made.data)


def test_a_share_of_a_single_file_is_its_start(tmp_path: Path) -> None:
    made = built("noise", tmp_path)
    (copy,) = copy_share(made.data, 0.1, tmp_path / "copies").iterdir()
    content = (made.data / "noise").read_bytes()
    assert copy.read_bytes() == content[: len(content) // 10]
