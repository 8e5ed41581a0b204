"""What Snappy copies, restic restores; and each of the two sees what the other has copied."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from snappy.repository.copier import Copied, Copier
from snappy.repository.repo import Repository
from tests.support import tools
from tests.support.engine import CHEAP, PASSWORD
from tests.support.littered import store_of
from tests.support.restic import PROGRAMS, Restic

OTHER_PASSWORD = "battery staple"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    (folder / "below").mkdir(parents=True)
    (folder / "text").write_bytes(b"said again and again\n" * 50_000)
    (folder / "below" / "noise").write_bytes(random.Random(5).randbytes(3 << 20))
    (folder / "empty").touch()
    (folder / "link").symlink_to("below/noise")
    os.utime(folder / "text", ns=(1, 1234567891))
    return folder


def copy(tmp_path: Path) -> list[Copied]:
    one, other = store_of(tmp_path / "source"), store_of(tmp_path / "target")
    with Repository.open(one, PASSWORD) as source, Repository.open(other, OTHER_PASSWORD) as target:
        return Copier(source, target).copy(source.snapshots())


def repositories(program: str | None, tmp_path: Path, old: str = "") -> tuple[Restic, Restic]:
    """Source and target; ``old`` is the one that has the first version of the format."""
    made = []
    for name, password in (("source", PASSWORD), ("target", OTHER_PASSWORD)):
        made.append(Restic(program or "", tmp_path / name, password, tmp_path / f"{name}-cache"))
        if name == old:
            made[-1].run("init", "--repository-version", "1")
        else:
            Repository.init(store_of(tmp_path / name), password, cost=CHEAP).close()
    made[1].environment |= {"RESTIC_FROM_REPOSITORY": str(tmp_path / "source"), "RESTIC_FROM_PASSWORD": PASSWORD}
    return made[0], made[1]


def fill(theirs: Restic, files: Path) -> None:
    theirs.run("backup", "--tag", "first", ".", cwd=files)
    (files / "text").write_bytes(b"something else\n" * 1000)
    theirs.run("backup", "--host", "elsewhere", ".", cwd=files)


def tree_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    found = {}
    for path in folder.rglob("*"):
        content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = (path.lstat().st_mtime_ns, content)
    return found


def assert_restored_alike(one: Restic, other: Restic, copied: Copied, tmp_path: Path) -> None:
    one.run("restore", copied.snapshot.id, "--target", tmp_path / "expected")
    other.run("restore", copied.name, "--target", tmp_path / "restored")
    assert tree_of(tmp_path / "restored") == tree_of(tmp_path / "expected") != {}


@pytest.mark.parametrize("program", PROGRAMS)
def test_restic_restores_a_copy_and_has_nothing_left_to_copy(program: str, tmp_path: Path, files: Path) -> None:
    one, other = repositories(program, tmp_path)
    fill(one, files)
    done = copy(tmp_path)
    assert [copied.is_new for copied in done] == [True, True]
    other.check()
    assert_restored_alike(one, other, done[0], tmp_path)
    other.run("copy")
    assert {snapshot["id"] for snapshot in other.json("snapshots")} == {copied.name for copied in done}


@pytest.mark.restic_newest
@pytest.mark.parametrize("old", ["source", "target"])
def test_between_two_versions_of_the_format(tmp_path: Path, files: Path, old: str) -> None:
    one, other = repositories(tools.newest_restic(), tmp_path, old)
    fill(one, files)
    [copied, _] = copy(tmp_path)
    other.check()
    assert_restored_alike(one, other, copied, tmp_path)


@pytest.mark.restic_newest
def test_there_is_nothing_left_after_restic(tmp_path: Path, files: Path) -> None:
    one, other = repositories(tools.newest_restic(), tmp_path)
    fill(one, files)
    other.run("copy")
    names = {snapshot["id"] for snapshot in other.json("snapshots")}
    done = copy(tmp_path)
    assert {copied.name for copied in done} == names
    assert not any(copied.is_new for copied in done)
