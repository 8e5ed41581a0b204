"""Restores into what takes files one after another."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from snappy.errors import Damaged, JobCancelled, SourceError
from snappy.repository.entries import Node
from snappy.repository.format import MIB, BlobType
from snappy.repository.progress import Progress
from snappy.repository.repo import Repository
from snappy.repository.stream_restorer import StreamRestorer
from tests.support import engine
from tests.support.backups import back_up


class Kept:
    """A sink that keeps all in memory."""

    def __init__(self, fails_at: bytes = b"") -> None:
        self.files: dict[bytes, bytes] = {}
        self.finished = False
        self._fails_at = fails_at

    def receive(self, path: bytes, node: Node, content: Iterator[bytes]) -> list[str]:
        if self._fails_at and path.endswith(self._fails_at):
            raise SourceError("no more")
        self.files[path] = b"".join(content)
        return ["the owner is another"] if path.endswith(b"large") else []

    def finish(self) -> list[str]:
        self.finished = True
        return []

    def close(self) -> None:
        pass


@pytest.fixture
def repository() -> Iterator[Repository]:
    with engine.new_repository() as made:
        yield made


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    top.mkdir()
    (top / "large").write_bytes(random.Random(1).randbytes(20 * MIB))
    (top / "empty").touch()
    (top / "small").write_bytes(b"small")
    (top / "link").symlink_to("small")
    return top


def test_files_come_whole_and_in_order(repository: Repository, tree: Path) -> None:
    snapshot = back_up(repository, tree).snapshot
    sink, progress = Kept(), Progress()
    done = StreamRestorer(repository, sink, progress=progress).restore(snapshot)
    expected = {bytes(tree / name): (tree / name).read_bytes() for name in ("empty", "large", "small")}
    assert list(sink.files.items()) == list(expected.items())
    assert sink.finished
    assert (done.files, done.bytes, done.warnings_total, done.errors_total) == (3, 20 * MIB + 5, 2, 0)
    assert {warning.message for warning in done.warnings} == {
        "the owner is another",
        "a symlink cannot be restored there",
    }
    assert progress.bytes_done == 20 * MIB + 5


def test_a_part_of_a_snapshot(repository: Repository, tree: Path) -> None:
    snapshot = back_up(repository, tree).snapshot
    sink = Kept()
    StreamRestorer(repository, sink).restore(snapshot, include=["small"])
    assert list(sink.files.values()) == [b"small"]


def test_what_is_lost_ends_it_unfinished(repository: Repository, tree: Path) -> None:
    snapshot = back_up(repository, tree).snapshot
    engine.forget(repository, BlobType.DATA)
    sink = Kept()
    with pytest.raises(Damaged, match=r"large is lost: its blob"):
        StreamRestorer(repository, sink).restore(snapshot)
    assert not sink.finished


def test_what_the_sink_raises_ends_it(repository: Repository, tree: Path) -> None:
    sink = Kept(fails_at=b"small")
    with pytest.raises(SourceError, match="no more"):
        StreamRestorer(repository, sink).restore(back_up(repository, tree).snapshot)
    assert not sink.finished


def test_what_a_sink_leaves_unread_is_let_go_at_once(repository: Repository, tree: Path) -> None:
    """Else whichever thread collects it waits for what is being fetched: that may be the one that fetches."""

    class Full(Kept):
        def receive(self, path: bytes, node: Node, content: Iterator[bytes]) -> list[str]:
            self.content = content
            next(content)
            raise SourceError("no room")

    sink = Full()
    with pytest.raises(SourceError):
        StreamRestorer(repository, sink).restore(back_up(repository, tree).snapshot, include=["large"])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
    with pytest.raises(StopIteration):
        next(sink.content)


def test_it_can_be_cancelled_amid_a_file(repository: Repository, tree: Path) -> None:
    snapshot = back_up(repository, tree).snapshot
    progress = Progress()

    def cancelled() -> None:
        if progress.bytes_done >= 8 * MIB:
            raise JobCancelled

    sink = Kept()
    with pytest.raises(JobCancelled):
        StreamRestorer(repository, sink, progress=progress, cancelled=cancelled).restore(snapshot)
    assert not sink.finished
    assert bytes(tree / "large") not in sink.files
