"""The comparator that other tests trust: each kind of difference is found, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import compare as module
from tests.support.compare import Options, compare
from tests.support.odd_tree import make_odd_tree

CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda top: rewrite(top / "one", b"2"),
    "size": lambda top: rewrite(top / "one", b"22"),
    "mtime": lambda top: os.utime(top / "zero", ns=(1, 1)),
    "mtime of": lambda top: os.utime(top / "link", ns=(1, 1), follow_symlinks=False),
    "mode": lambda top: (top / "sticky").chmod(0o777),
    "xattrs": lambda top: os.setxattr(top / "one", "user.colour", b"red"),
    "link target": lambda top: retarget(top / "link"),
    "type": lambda top: retype(top / "fifo"),
    "only in the first": lambda top: (top / "zero").unlink(),
    "only in the second": lambda top: (top / "more").write_bytes(b""),
    "hard link": lambda top: unlink_hard(top / "one more"),
}


def rewrite(path: Path, content: bytes) -> None:
    found = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def retarget(path: Path) -> None:
    path.unlink()
    path.symlink_to("two")


def retype(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"")


def unlink_hard(path: Path) -> None:
    content, found = path.read_bytes(), path.stat()
    path.unlink()
    path.write_bytes(content)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    make_odd_tree(tmp_path / "a")
    make_odd_tree(tmp_path / "b")
    return tmp_path / "a", tmp_path / "b"


def test_equal_trees(trees: tuple[Path, Path]) -> None:
    found = compare(*trees)
    assert found.same, found.differences
    assert found.files > 20
    assert found.bytes > 20 << 20


@pytest.mark.parametrize("what", CHANGES)
def test_each_difference_is_found(trees: tuple[Path, Path], what: str) -> None:
    CHANGES[what](trees[1])
    os.utime(trees[1], ns=(trees[0].stat().st_atime_ns, trees[0].stat().st_mtime_ns))
    found = compare(*trees)
    assert any(what.removesuffix(" of") in line for line in found.differences), found.differences


@pytest.mark.needs_root
def test_owners(trees: tuple[Path, Path]) -> None:
    os.chown(trees[1] / "one", 7, 7)
    assert "owner" in compare(*trees).differences[0]
    assert compare(*trees, Options(owners=False)).same


def test_filled_holes(trees: tuple[Path, Path]) -> None:
    rewrite(trees[1] / "sparse", (trees[0] / "sparse").read_bytes())
    assert compare(*trees).same
    assert "holes" in compare(*trees, Options(holes=True)).differences[0]


@pytest.mark.parametrize(("change", "status"), [(False, 0), (True, 1)])
def test_as_a_program(trees: tuple[Path, Path], change: bool, status: int) -> None:
    if change:
        rewrite(trees[1] / "one", b"2")
    done = subprocess.run([sys.executable, module.__file__, *trees], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert " bytes compared: " in done.stdout.splitlines()[-1]


def test_it_imports_nothing_of_what_it_judges() -> None:
    assert "snappy" not in Path(module.__file__).read_text().replace("of Snappy", "")
