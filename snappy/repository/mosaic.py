"""A disk's image put together of blocks that are known and blocks that are read.

Known are those that cannot have changed since the parent snapshot, and those where nothing was ever written. Which
moment of the disk a node shows stands in an extended attribute of it, with a hash of its blobs: nothing is taken over
from a node that somebody has changed since, say to mend it.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import NamedTuple, Protocol

from snappy.repository.blocks import Cut, block_for, is_block
from snappy.repository.entries import Entry, Extent, Image, Node, Recipe
from snappy.repository.format import MIB, BlobId
from snappy.repository.journal import Known
from snappy.repository.relay import Told
from snappy.repository.repo import Repository

POINT = b"user.snappy.point"
BYTES_TOGETHER = 4 * MIB
BLOCKS_TOGETHER = 1 << 14
"""What one stretch has at most: bytes to read, and blocks of any kind."""

Save = Callable[[bytes], BlobId]


class Moment(NamedTuple):
    """What a node shows, and the size in bytes of the blocks that it is cut into."""

    point: str
    block: int


def mark(node: Node, moment: Moment) -> None:
    """Note in the node, which has its content, the moment that it shows."""
    value = b"%s %d %s" % (_digest(node.content or []), moment.block, moment.point.encode())
    node.xattrs = {**node.xattrs, POINT: value}


def moment_of(node: Node) -> Moment | None:
    """The moment that the node shows, if one is noted and it still does."""
    digest, _, rest = node.xattrs.get(POINT, b"").partition(b" ")
    block, _, point = rest.partition(b" ")
    if digest != _digest(node.content or []) or not block.isdigit() or not is_block(int(block)):
        return None
    return Moment(point.decode(errors="replace"), int(block))


def _digest(blobs: list[BlobId]) -> bytes:
    return hashlib.sha256(b"".join(blobs)).hexdigest().encode()


class Whole(Told, Protocol):
    """Who is told of an image as a whole, and knows how it begins."""

    entry: Entry
    recipe: Recipe
    known: Known
    moment: Moment | None
    """What its node will show."""

    def kept(self, blob: BlobId, size: int) -> None:
        """The next blob, which was not read."""


class Mosaic:
    """Tells ``whole`` of an image's blocks in their order. ``old`` is its node in the parent snapshot; ``save`` stores
    a blob. Raises what the image raises."""

    def __init__(self, repo: Repository, whole: Whole, image: Image, old: Node | None, save: Save) -> None:
        self._repo, self.whole, self._save = repo, whole, save
        self._size = whole.entry.node.size
        shown = moment_of(old) if old else None
        self.block = shown.block if shown else self._block(old)
        self._lock = threading.Lock()
        self._stretches: deque[Stretch] = deque()
        self._is_planned = self._is_lost = False
        self._remark = ""
        self._zeros: dict[int, BlobId] = {}
        whole.moment = Moment(image.point, self.block) if image.point else None
        self._first = self._begun()
        changed = image.changed_since(shown.point) if shown else None
        self._base = (old.content or []) if old and changed is not None else None
        self._touched = self._touch(image.allocated() if changed is None else changed)

    def _block(self, old: Node | None) -> int:
        """As large as the first that is stored, if one is: blocks that are cut elsewhere are all new."""
        before = self._repo.stored_size(old.content[0]) if old and old.content else None
        return before if before is not None and is_block(before) else block_for(self._size)

    def _begun(self) -> int:
        """How many blocks are known from an attempt before; what it cut into others is read again."""
        blobs = self.whole.known.blobs
        sizes = (self._repo.stored_size(blob) for blob in blobs)
        return len(blobs) if all(size == self.block for size in sizes) else 0

    def _touch(self, extents: Iterable[Extent]) -> bytearray:
        """For each block whether it lies in the extents, partly or wholly."""
        count = -(-self._size // self.block)
        touched = bytearray(count)
        for offset, length in extents:
            first, end = offset // self.block, min(count, -(-(offset + length) // self.block))
            touched[first:end] = b"\1" * max(0, end - first)
        return touched

    def stretches(self) -> Iterator[Stretch]:
        """Those that have to be read, for whoever does. Only after the last one all can be told."""
        self.whole.begun(self._first > 0)
        first, blobs, wanted = self._first, list[BlobId | None](), 0
        for place in range(self._first, len(self._touched)):
            blob = self._known(place)
            blobs.append(blob)
            wanted += self.block if blob is None else 0
            if wanted >= BYTES_TOGETHER or len(blobs) >= BLOCKS_TOGETHER:
                yield from self._begin(first, blobs)
                first, blobs, wanted = place + 1, [], 0
            if self._is_lost:
                return
        self._is_planned = True
        yield from self._begin(first, blobs)

    def _begin(self, first: int, blobs: list[BlobId | None]) -> Iterator[Stretch]:
        stretch = Stretch(self, first, blobs)
        with self._lock:
            self._stretches.append(stretch)
        if stretch.size:
            yield stretch
        else:
            stretch.done("")

    def _known(self, place: int) -> BlobId | None:
        length = self.length(place)
        if self._touched[place]:
            return None
        if self._base is None:
            return self._zero(length)
        blob = self._base[place] if place < len(self._base) else None
        return blob if blob and self._repo.stored_size(blob) == length else None

    def _zero(self, length: int) -> BlobId:
        if length not in self._zeros:
            self._zeros[length] = self._save(bytes(length))
        return self._zeros[length]

    def length(self, place: int) -> int:
        """Bytes of the block at ``place``."""
        return min(self.block, self._size - place * self.block)

    def settle(self, remark: str) -> None:
        """Tell of the stretches that are complete, as far as none before them is missing."""
        with self._lock:
            self._remark = self._remark or remark
            while self._stretches and self._stretches[0].is_done and not self._is_lost:
                self._stretches.popleft().tell(self.whole)
                if self._is_planned and not self._stretches:
                    self.whole.done(self._remark)

    def lost(self, why: str) -> None:
        """With one block the image is lost."""
        with self._lock:
            if not self._is_lost:
                self._is_lost = True
                self.whole.lost(why)


class Stretch:
    """Blocks that follow each other, as who reads them sees them: a file that is wanted. ``blobs`` lacks those that are
    to be read."""

    files = 1
    skip = 0

    def __init__(self, mosaic: Mosaic, first: int, blobs: list[BlobId | None]) -> None:
        self._mosaic, self._first, self._blobs = mosaic, first, blobs
        self.entry, self.recipe = mosaic.whole.entry, mosaic.whole.recipe
        runs = list(self._runs())
        self.cut: Cut | None = Cut(mosaic.block, runs)
        self.size = sum(length for _, length in runs)
        self._read: list[tuple[BlobId, int]] = []
        self.is_done = False

    def _runs(self) -> Iterator[Extent]:
        """What is to be read, as few runs as there can be."""
        missing = (place for place, blob in enumerate(self._blobs, self._first) if blob is None)
        for _, run in groupby(enumerate(missing), lambda one: one[1] - one[0]):
            places = [place for _, place in run]
            yield Extent(places[0] * self._mosaic.block, sum(map(self._mosaic.length, places)))

    def begun(self, skipped: bool) -> None:
        """The reading begins; nothing is ever skipped."""

    def read(self, blob: BlobId, size: int) -> None:
        self._read.append((blob, size))

    def done(self, changed: str) -> None:
        self.is_done = True
        self._mosaic.settle(changed)

    def lost(self, why: str) -> None:
        self._mosaic.lost(why)

    def tell(self, whole: Whole) -> None:
        """Of all its blocks."""
        read = iter(self._read)
        for place, blob in enumerate(self._blobs, self._first):
            if blob is None:
                whole.read(*next(read))
            else:
                whole.kept(blob, self._mosaic.length(place))
