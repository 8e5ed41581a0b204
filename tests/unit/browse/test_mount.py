"""A repository as a file system of the kernel: what is mounted is what was backed up."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pytest

from snappy.browse import layout
from snappy.repository.snapshots import Snapshot
from snappy.repository.store import Store
from tests.support import engine
from tests.support.backups import back_up
from tests.support.compare import compare
from tests.support.odd_tree import make_odd_tree
from tests.support.random_reads import random_reads

WAIT_SECONDS = 30.0


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("source") / "tree"
    make_odd_tree(top)
    return Path(os.path.realpath(top))


@pytest.fixture(scope="module")
def mounted(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A mount of a repository with one snapshot of the tree; ended by SIGINT."""
    place, folder = tmp_path_factory.mktemp("repository"), tmp_path_factory.mktemp("mounted")
    with engine.new_repository(Store(fsspec.filesystem("file", auto_mkdir=True), str(place))) as repository:
        back_up(repository, tree)
    with mounting(place, folder) as process:
        wait_until(lambda: os.path.ismount(folder), process)
        yield folder
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0, said
    assert not os.path.ismount(folder)
    assert list((place / "locks").iterdir()) == []


def mounting(place: Path, folder: Path) -> subprocess.Popen[bytes]:
    command = ["mount", "--from", str(place), str(folder)]
    code = f"import sys; from snappy.cli.main import main; sys.exit(main({command}))"
    environment = {**os.environ, "SNAPPY_PASSWORD": engine.PASSWORD, "SNAPPY_STATE_DIR": str(place.parent / "state")}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE)


def wait_until(true: object, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not true():  # type: ignore[operator]
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.fuse
def test_what_is_mounted_is_what_was_backed_up(mounted: Path, tree: Path) -> None:
    (snapshot,) = (mounted / "ids").iterdir()
    found = compare(tree, Path(f"{snapshot}{tree}"))
    assert found.same, found.differences
    assert found.files > 20


@pytest.mark.fuse
def test_any_range_read_from_the_mount_is_the_sources(mounted: Path, tree: Path) -> None:
    here = Path(f"{mounted}/snapshots/latest{tree}")
    for below, offset, length, wanted in random_reads(tree, seed=11):
        with open(os.fsencode(here) + b"/" + below.encode("utf-8", "surrogateescape"), "rb") as file:
            file.seek(offset)
            assert file.read(length) == wanted, (below, offset, length)


@pytest.mark.fuse
def test_the_mount_is_read_only_and_says_what_is_missing(mounted: Path, tree: Path) -> None:
    here = Path(f"{mounted}/hosts/host-a/latest{tree}")
    for change in (lambda: (here / "new").write_bytes(b""), lambda: (here / "one").unlink()):
        with pytest.raises(OSError) as caught:
            change()
        assert caught.value.errno == errno.EROFS
    with pytest.raises(FileNotFoundError):
        (mounted / "ids" / "nothing").stat()
    with pytest.raises(NotADirectoryError):
        (here / "one" / "below").stat()
    assert sorted(os.listdir(mounted)) == ["hosts", "ids", "snapshots", "tags"]


@pytest.mark.parametrize("lacking", ["mfusepy", "libfuse"])
def test_what_is_lacking_is_said(lacking: str, tmp_path: Path) -> None:
    error = "ImportError" if lacking == "mfusepy" else "OSError"
    (tmp_path / "mfusepy.py").write_text(f"raise {error}('none')\n")
    with engine.new_repository(Store(fsspec.filesystem("file", auto_mkdir=True), str(tmp_path / "repo"))):
        pass
    command = ["mount", "--from", str(tmp_path / "repo"), str(tmp_path)]
    code = f"import sys; from snappy.cli.main import main; sys.exit(main({command}))"
    environment = {**os.environ, "SNAPPY_PASSWORD": engine.PASSWORD, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert done.returncode == 2
    assert ("snappy-backup[mount]" if lacking == "mfusepy" else "fuse3").encode() in done.stderr


def test_snapshots_of_one_second_and_odd_tags_have_names_of_their_own() -> None:
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    made = [Snapshot(time=when, tree="", paths=[], id=letter * 64, hostname="h", tags=["a/b", ".."]) for letter in "12"]
    top = layout.layout(made)
    times = {"2026-01-02T03:04:05Z": made[0], "2026-01-02T03:04:05Z-1": made[1], "latest": "2026-01-02T03:04:05Z-1"}
    assert top == {
        "ids": {"11111111": made[0], "22222222": made[1]},
        "snapshots": times,
        "hosts": {"h": times},
        "tags": {"a_b": times, "_..": times},
    }
