"""One suite for all kinds of drafts; a kind joins by an entry in ``KINDS``."""

from __future__ import annotations

import secrets
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from snappy.bus.failures import to_wire
from snappy.errors import NoSpace
from snappy.targets import drafts
from snappy.targets.drafts import PART_SUFFIX, RenamedDraft, UploadDraft, draft
from snappy.targets.local import DurableLocalFileSystem


class ObjectStore(MemoryFileSystem):
    """Memory that calls itself an object store, and says no as one does."""

    protocol = "s3"

    def pipe_file(self, path: str, value: bytes | drafts.Body, mode: str = "overwrite", **options: Any) -> None:
        if mode == "create" and self.exists(path):
            error = OSError("At least one of the pre-conditions you specified did not hold")
            error.__cause__ = StoreRefusal()
            raise error
        super().pipe_file(path, value if isinstance(value, bytes) else value.read())

    def put_file(self, lpath: str, rpath: str, mode: str = "overwrite", **options: Any) -> None:
        self.pipe_file(rpath, Path(lpath).read_bytes(), mode)


class StoreRefusal(Exception):
    def __init__(self, code: str = "PreconditionFailed") -> None:
        self.response = {"Error": {"Code": code}}


Made = tuple[AbstractFileSystem, str]
KINDS: dict[str, Callable[[Path], Made]] = {
    "durable": lambda folder: (DurableLocalFileSystem(), str(folder)),
    "memory": lambda folder: (MemoryFileSystem(), f"/{secrets.token_hex(8)}"),
    "store": lambda folder: (ObjectStore(), f"/{secrets.token_hex(8)}"),
    "renamed": lambda folder: (LocalFileSystem(), str(folder)),
}


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    return KINDS[request.param](tmp_path)


def visible(fs: AbstractFileSystem, root: str) -> list[str]:
    try:
        return [name.removeprefix(root + "/") for name in fs.find(root) if not name.endswith(PART_SUFFIX)]
    except FileNotFoundError:
        return []


def test_nothing_shows_before_the_commit_and_all_after(place: Made) -> None:
    fs, root = place
    made = draft(fs, f"{root}/data/ab/x", exclusive=False)
    made.write(b"one ")
    made.write(memoryview(b"two"))
    assert visible(fs, root) == []
    made.commit()
    made.discard()
    assert visible(fs, root) == ["data/ab/x"]
    assert fs.cat_file(f"{root}/data/ab/x") == b"one two"


def test_a_full_folder_for_temporary_files_is_told_from_a_full_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    fs = ObjectStore()
    full = Path("/dev/full").open("wb")  # noqa: SIM115
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", lambda: full)
    made = draft(fs, "/full/x", exclusive=False)
    with pytest.raises(NoSpace, match="temporary files"):
        made.write(bytes(drafts.SPOOL + 1))
    made.discard()
    assert not fs.exists("/full/x")


def test_what_an_object_store_said_is_not_lost() -> None:
    class Full(ObjectStore):
        def pipe_file(self, path: str, value: bytes | drafts.Body, mode: str = "overwrite", **options: Any) -> None:
            raise OSError("no more") from StoreRefusal("QuotaExceeded")

    made = draft(Full(), "/full/x", exclusive=True)
    with pytest.raises(OSError) as caught:
        made.commit()
    assert to_wire(caught.value).code == "no-space"


def test_a_discarded_draft_leaves_nothing(place: Made) -> None:
    fs, root = place
    made = draft(fs, f"{root}/x", exclusive=False)
    made.write(b"half")
    made.discard()
    made.discard()
    assert fs.find(root) == [] if fs.exists(root) else True
    assert not fs.exists(f"{root}/x")


def test_an_exclusive_draft_replaces_nothing(place: Made) -> None:
    fs, root = place
    for content, taken in ((b"first", False), (b"second", True)):
        made = draft(fs, f"{root}/x", exclusive=True)
        made.write(content)
        if taken:
            with pytest.raises(FileExistsError):
                made.commit()
        else:
            made.commit()
        made.discard()
    assert fs.cat_file(f"{root}/x") == b"first"
    assert [name for name in fs.find(root) if name.endswith(PART_SUFFIX)] == []


def test_a_draft_that_may_replace_does(place: Made) -> None:
    fs, root = place
    for content in (b"first, and longer", b"second"):
        made = draft(fs, f"{root}/x", exclusive=False)
        made.write(content)
        made.commit()
    assert fs.cat_file(f"{root}/x") == b"second"


def test_an_empty_object_can_be_made(place: Made) -> None:
    fs, root = place
    draft(fs, f"{root}/empty", exclusive=True).commit()
    assert fs.info(f"{root}/empty")["size"] == 0


def test_what_is_written_may_change_afterwards(place: Made) -> None:
    fs, root = place
    buffer = bytearray(b"before")
    made = draft(fs, f"{root}/x", exclusive=False)
    made.write(buffer)
    buffer[:] = b"after!"
    made.commit()
    assert fs.cat_file(f"{root}/x") == b"before"


@pytest.mark.parametrize("kind", ["memory", "durable"])
def test_of_many_at_once_one_wins(kind: str, tmp_path: Path) -> None:
    fs, root = KINDS[kind](tmp_path)
    start, won = threading.Barrier(8), []

    def race(number: int) -> None:
        made = draft(fs, f"{root}/x", exclusive=True)
        made.write(b"%d" % number)
        start.wait()
        try:
            made.commit()
            won.append(number)
        except FileExistsError:
            made.discard()

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert fs.cat_file(f"{root}/x") == b"%d" % won[0]


@pytest.mark.parametrize(("spool", "single"), [(10, 100), (10, 15), (1000, 2000)])
def test_a_long_object_waits_in_a_file(spool: int, single: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "SPOOL", spool)
    monkeypatch.setattr(drafts, "SINGLE_PUT", single)
    fs, root = KINDS["store"](Path())
    for mode, fails in ((True, False), (True, True), (False, False)):
        made = draft(fs, f"{root}/x", exclusive=mode)
        assert isinstance(made, UploadDraft)
        for piece in (b"0123456", b"789abc", b"defgh"):
            made.write(piece)
        if fails:
            with pytest.raises(FileExistsError):
                made.commit()
            made.discard()
        else:
            made.commit()
    assert fs.cat_file(f"{root}/x") == b"0123456789abcdefgh"


def test_a_body_begins_anew_for_each_that_sends_it(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    with drafts.Body(tmp_path / "x") as body:
        assert (len(body), body.tell(), body.read(4)) == (10, 0, b"0123")  # and there it broke off
        assert (len(body), body.tell(), body.read()) == (10, 0, b"0123456789")


def test_a_filesystem_without_more_is_renamed_in(tmp_path: Path) -> None:
    made = draft(LocalFileSystem(), str(tmp_path / "x"), exclusive=False)
    assert isinstance(made, RenamedDraft)
    assert [path.name.endswith(PART_SUFFIX) for path in tmp_path.iterdir()] == [True]
    made.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
