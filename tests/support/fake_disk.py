"""A disk in memory that remembers its moments, as a source of images."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from snappy.repository.archiver import Archiver, BackupResult
from snappy.repository.entries import Entry, Extent, Node
from snappy.repository.format import BlobType
from snappy.repository.repo import Repository
from snappy.repository.snapshots import Snapshot

SECTOR = 512
PATH = b"/disk"
NAMES = {"paths": ["disk://one"], "hostname": "host-a"}


class Moment:
    """The disk as it was; see :class:`snappy.repository.entries.Image`."""

    def __init__(self, disk: FakeDisk, number: int, content: bytes) -> None:
        self._disk, self._time, self.point, self.content = disk, number, f"moment {number}", content

    def allocated(self) -> Iterator[Extent]:
        return _differing(b"", self.content)

    def changed_since(self, point: str) -> Iterator[Extent] | None:
        before = self._disk.moments.get(point)
        if before is None:
            return None
        end = len(before.content)
        return (one for one in _differing(before.content, self.content) if one.offset < end)

    def open(self) -> BinaryIO:
        return cast(BinaryIO, _Counted(self._disk, self.content))

    def entry(self, **fields: Any) -> Entry:
        """Of this moment."""
        node = Node(name=PATH[1:], type="file", size=len(self.content), mtime_ns=self._time, links=1)
        return Entry(path=PATH, node=node, open=self.open, image=self, **fields)


class FakeDisk:
    """``content`` is for whoever writes to it; ``read`` counts the bytes that were read of its moments."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = bytearray(content)
        self.moments: dict[str, Moment] = {}
        self.read = 0
        self._numbers = itertools.count(1)

    def now(self) -> Moment:
        """A moment, which stays."""
        moment = Moment(self, next(self._numbers), bytes(self.content))
        self.moments[moment.point] = moment
        return moment


class _Counted(io.BytesIO):
    def __init__(self, disk: FakeDisk, content: bytes) -> None:
        super().__init__(content)
        self._disk = disk

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._disk.read += len(data)
        return data


def _differing(before: bytes, now: bytes) -> Iterator[Extent]:
    """Sectors, in no order; what is beyond the end of one reads as zeros."""
    sectors = range(0, len(now), SECTOR)
    for start in reversed(sectors):
        ours, theirs = now[start : start + SECTOR], before[start : start + SECTOR]
        if ours != theirs.ljust(len(ours), b"\0")[: len(ours)]:
            yield Extent(start, len(ours))


def back_up(
    repository: Repository, *entries: Entry, parent: Snapshot | None = None, force: bool = False, **how: Any
) -> BackupResult:
    """A snapshot of the entries."""
    return Archiver(repository, parent=parent, **how).backup(entries, force=force, **NAMES)


def node_of(repository: Repository, snapshot: Snapshot) -> Node:
    """The image's node."""
    [node] = repository.load_tree(snapshot.tree_id)
    return node


def content_of(repository: Repository, snapshot: Snapshot) -> bytes:
    """What a restore would bring."""
    node = node_of(repository, snapshot)
    found = b"".join(repository.load_blob(BlobType.DATA, blob) for blob in node.content or ())
    assert len(found) == node.size
    return found
