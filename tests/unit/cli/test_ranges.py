"""Parts of files by ``snappy cat`` and ``snappy dump``: the source's bytes, at any offset, of any file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest

from snappy.cli import browsing
from snappy.cli import main as door
from snappy.errors import UsageError
from snappy.repository.repo import Repository
from snappy.repository.store import Store
from snappy.repository.view import View
from tests.support import engine
from tests.support.backups import back_up
from tests.support.odd_tree import HOLE, LARGE, make_odd_tree
from tests.support.random_reads import random_reads

Cat = Callable[..., bytes]
MIB = 1 << 20


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("source") / "tree"
    make_odd_tree(top)
    return Path(os.path.realpath(top))


@pytest.fixture(scope="module")
def place(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("repository")
    with engine.new_repository(Store(fsspec.filesystem("file", auto_mkdir=True), str(place))) as repository:
        back_up(repository, tree)
    return place


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Iterator[Cat]:
    """A command on the tree's snapshot; what it prints. For all of them the repository is opened once, and the parser
    made once."""
    parser = door._parser()
    monkeypatch.setattr(door, "_parser", lambda: parser)
    with Repository.open(Store(fsspec.filesystem("file"), str(place)), engine.PASSWORD) as repository:
        view = View(repository)

        @contextmanager
        def opened(_arguments: object) -> Iterator[View]:
            yield view

        monkeypatch.setattr(browsing, "opened", opened)

        def run(*words: object, code: int = 0) -> bytes:
            command, *rest = map(str, words)
            try:
                status = door.main([command, "--from", str(place), *rest])
            except SystemExit as end:
                status = end.code
            assert status == code
            printed = capsysbinary.readouterr()
            return printed.out if code == 0 else printed.err

        yield run


def test_a_thousand_ranges_are_the_sources(run: Cat, tree: Path) -> None:
    for below, offset, length, wanted in random_reads(tree, seed=7):
        got = run("cat", f"--offset={offset}", f"--length={length}", f"latest:{tree}", "--", below)
        assert got == wanted, (below, offset, length)


def test_real_commands_print_the_same(place: Path, tree: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "SNAPPY_PASSWORD": engine.PASSWORD, "SNAPPY_STATE_DIR": str(tmp_path)}
    for command, (below, offset, length, wanted) in zip(("cat", "dump"), random_reads(tree, 8), strict=False):
        words = [command, "--from", str(place), f"--offset={offset}", f"--length={length}", f"latest:{tree}", below]
        code = f"import sys; from snappy.cli.main import main; sys.exit(main({words}))"
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
        assert done.stdout == wanted, (below, offset, length)


def test_from_the_end_and_over_it(run: Cat, tree: Path, tmp_path: Path) -> None:
    large = (tree / "large").read_bytes()
    assert run("cat", "latest", tree / "large", "--offset=-10") == large[-10:]
    assert run("cat", "latest", tree / "large", "--offset=-1M", "--length=64k") == large[-MIB:][:65_536]
    assert run("cat", "latest", tree / "large", "--offset=-1G", "--length", 5) == large[:5]
    assert run("cat", "latest", tree / "large", "--offset", LARGE + 1, "--length", 5) == b""
    assert run("cat", "latest", tree / "zero", "--offset=-1", "--length", 1) == b""
    assert run("cat", "latest", tree / "sparse", "--offset", 4, "--length", HOLE - 4) == bytes(HOLE - 4)
    assert run("cat", "latest", tree / "one", tree / "twice", "--length", 3) == b"1the"
    assert run("cat", "latest", tree / "link", "--offset=1") == b""
    run("dump", "latest", tree / "large", "--offset=1M", "-t", tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == large[MIB:]


@pytest.mark.parametrize(
    "words",
    [
        ("dump", "latest", "/", "--offset=1"),
        ("cat", "tree", "latest", "--length=1"),
        ("cat", "latest", "/x", "--offset=ten"),
        ("cat", "latest", "/x", "--length=-1"),
    ],
    ids=" ".join,
)
def test_what_has_no_parts(run: Cat, words: tuple[str, ...]) -> None:
    said = run(*words, code=UsageError.exit_code).decode()
    assert "are for files" in said or "is no size" in said
