"""Commands that look into snapshots, without a server: bytes, errors, locks, and readers that leave."""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from snappy.cli import objects
from snappy.cli.main import main
from snappy.errors import Damaged, NotFound, SnappyError, SnapshotNotFound, UsageError
from snappy.repository.repo import Repository
from snappy.repository.store import Store
from snappy.repository.tree_reader import TreeReader
from snappy.repository.view import View
from tests.support import engine
from tests.support.backups import back_up

Run = Callable[..., bytes]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("source") / "tree"
    (top / "docs" / "api").mkdir(parents=True)
    (top / "docs" / "readme.txt").write_bytes(b"read me")
    (top / "docs" / "api" / os.fsdecode(b"\xff")).write_bytes(b"odd")
    (top / "noise").write_bytes(random.Random(1).randbytes(5 << 20))
    return Path(os.path.realpath(top))


@pytest.fixture(scope="module")
def place(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("repository")
    with engine.new_repository(Store(fsspec.filesystem("file", auto_mkdir=True), str(place))) as repository:
        back_up(repository, tree)
        (tree / "later").write_bytes(b"later")
        back_up(repository, tree)
    return place


@pytest.fixture
def run(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Run:
    monkeypatch.setenv("SNAPPY_PASSWORD", engine.PASSWORD)
    monkeypatch.setenv("SNAPPY_STATE_DIR", str(tmp_path / "state"))

    def run(*arguments: str | Path, code: int = 0) -> bytes:
        command, *rest = map(str, arguments)
        assert main([command, "--from", str(place), *rest]) == code
        printed = capsysbinary.readouterr()
        return printed.out + printed.err

    return run


def test_names_are_printed_as_they_are(run: Run, tree: Path) -> None:
    assert os.fsencode(tree) + b"/docs/api/\xff\n" in run("ls", "latest")
    assert json.loads(run("find", "--json", "api"))[0]["hits"] == 2
    assert run("cat", "latest", str(tree / "docs/api" / os.fsdecode(b"\xff"))) == b"odd"


def test_what_snapshots_share_is_looked_at_once(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Repository.open(Store(fsspec.filesystem("file"), str(place)), engine.PASSWORD) as repository:
        ids = [each.id for each in repository.snapshots()]
    loaded: list[bytes] = []
    load = TreeReader.load

    def counted(self: TreeReader, tree: bytes, siblings: object = ()) -> object:
        loaded.append(tree)
        return load(self, tree, siblings)

    monkeypatch.setattr(TreeReader, "load", counted)
    for patterns in (["readme*", "later", "docs"], ["\\xff*", "noise"], ["/nothing"]):
        each = [json.loads(run("find", "--json", *patterns, "-s", one)) for one in ids]
        loaded.clear()
        assert json.loads(run("find", "--json", "--reverse", *patterns)) == [hits for one in each for hits in one]
        assert len(loaded) == len(set(loaded))


def test_what_objects_stand_for(run: Run, place: Path, tree: Path) -> None:
    with Repository.open(Store(fsspec.filesystem("file"), str(place)), engine.PASSWORD) as repository:
        repository.load_index()
        (odd,) = [each for each in repository.index if repository.load_blob(each.kind, each.id) == b"odd"]
        first, second = (each.id for each in repository.snapshots())
    path = f"{tree}/docs/api/" + os.fsdecode(b"\xff")
    assert run("find", "--blob", odd.id.hex(), "-s", first).splitlines()[1] == b" ... in file " + os.fsencode(path)
    found = json.loads(run("find", "--json", "--blob", "--show-pack-id", odd.id.hex()[:10]))
    assert [(each["snapshot"], each["pack"]) for each in found] == [(one, odd.pack.hex()) for one in (second, first)]
    assert all(run("cat", "tree", f"{first}:{tree}/docs/api") and each["parent_tree"] for each in found)
    known = json.loads(run("find", "--json", "--tree", found[0]["parent_tree"]))
    assert {each["path"] for each in known} == {f"{tree}/docs/api"}
    assert json.loads(run("find", "--json", "--tree", "0123456789")) == []


def test_a_pack_that_is_damaged_is_known_from_the_index(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = next(path.name for path in sorted((place / "data").glob("*/*")))
    whole = json.loads(run("find", "--json", "--pack", pack[:8]))

    def damaged(*arguments: object) -> None:
        raise Damaged("planted")

    monkeypatch.setattr(Repository, "pack_blobs", damaged)
    assert json.loads(run("find", "--json", "--pack", pack)) == whole
    assert whole


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--pack", "0123456789"), NotFound),
        (("--blob", "readme.txt"), UsageError),
        (("--tree", "0" * 65), UsageError),
    ],
    ids=str,
)
def test_ids_that_are_none(run: Run, words: tuple[str, ...], error: type[SnappyError]) -> None:
    run("find", *words, code=error.exit_code)


def test_packs_are_looked_into_where_the_repository_is() -> None:
    afar = View(object())  # type: ignore[arg-type]
    afar._is_indexed = True
    with pytest.raises(UsageError, match="looks into its packs"):
        objects._search(afar, argparse.Namespace(objects="pack", patterns=["ff"]))


def test_a_folder_may_stand_for_the_root(run: Run, tree: Path) -> None:
    assert run("cat", f"latest:{tree}/docs", "readme.txt") == b"read me"
    assert run("ls", f"latest:{tree}/docs").splitlines()[1:] == [b"/api", b"/api/\xff", b"/readme.txt"]


@pytest.mark.parametrize("command", ["ls", "cat", "dump"])
def test_what_is_not_there_is_named_with_the_nearest(run: Run, tree: Path, command: str) -> None:
    said = run(command, "latest", tree / "docs" / "aip" / "x", code=NotFound.exit_code).decode()
    assert f"has no {tree}/docs/aip/x; the nearest that it has is {tree}/docs" in said
    assert b"starts with 'ffff'" in run(command, "ffff", "/", code=SnapshotNotFound.exit_code)
    assert b"none that passes" in run(command, "latest", "/", "--host", "nobody", code=SnapshotNotFound.exit_code)


def test_a_directory_is_no_file(run: Run, tree: Path) -> None:
    assert b"is a directory" in run("cat", "latest", tree, code=5)
    assert b"is no directory, but a file" in run("ls", f"latest:{tree}/noise", code=5)


def test_wrong_use(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert b"which snapshot?" in run("cat", "snapshot", "latest", "latest", code=UsageError.exit_code)
    assert b"cannot write" in run("dump", "latest", "/", "-t", "/nowhere/x", code=UsageError.exit_code)
    assert b"target's name" in run("ls", "--from", "vault", "latest", code=UsageError.exit_code)
    monkeypatch.setenv("SNAPPY_PASSWORD", "wrong")
    assert json.loads(run("ls", "latest", "--json", code=12).splitlines()[0])["error"]["code"] == "wrong-password"


@pytest.mark.parametrize("more", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "raw"])
def test_a_reader_that_leaves_is_no_error_to_speak_of(
    place: Path, tree: Path, tmp_path: Path, more: dict[str, str]
) -> None:
    command = ["cat", "--from", str(place), "latest", str(tree / "later"), str(tree / "noise")]
    code = f"import sys; from snappy.cli.main import main; sys.exit(main({command}))"
    environment = {**os.environ, "SNAPPY_PASSWORD": engine.PASSWORD, "SNAPPY_STATE_DIR": str(tmp_path), **more}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.read(10) == b"later" + (tree / "noise").read_bytes()[:5]
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_a_lock_is_held_while_it_looks_and_no_longer(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    load_index = Repository.load_index

    def look(self: Repository) -> None:
        seen.append(len(list((place / "locks").glob("*"))))
        load_index(self)

    monkeypatch.setattr(Repository, "load_index", look)
    run("ls", "latest")
    run("ls", "latest", "--no-lock")
    assert seen == [1, 0]
    assert list((place / "locks").glob("*")) == []


def test_who_may_only_read_looks_without_a_lock(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.pipe_file", refuse)
    assert b"readme.txt" in run("ls", "latest")


def test_a_damaged_directory_is_named_and_the_rest_is_listed(
    run: Run, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = TreeReader.load

    def broken(self: TreeReader, blob: bytes, siblings: object = ()) -> object:
        nodes = load(self, blob)
        if any(node.name == b"readme.txt" for node in nodes):
            raise Damaged("planted")
        return nodes

    monkeypatch.setattr(TreeReader, "load", broken)
    said = run("ls", "latest", code=Damaged.exit_code).decode()
    assert f"{tree}/docs: what was in it is lost: planted" in said
    assert f"{tree}/noise" in said
