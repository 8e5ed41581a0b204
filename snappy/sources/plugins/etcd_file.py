"""The file that an etcd member keeps: what a restore key by key reads out of a snapshot.

It is a bbolt database (``page.go``, ``meta.go`` and ``bucket.go`` of go.etcd.io/bbolt): pages of one size, nodes of B+
trees that are buckets. The bucket ``key`` has every change by its revision, the bucket ``lease`` every lease; values
are Protocol Buffers (``kv.proto`` and ``lease.proto`` of etcd). Numbers are little-endian, but for those in keys.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from snappy.errors import Damaged

MAGIC = 0xED0CDAED
PAGE = struct.Struct("<QHHI")
"""Number, flags, elements, and how many pages that follow are part of it."""
META = struct.Struct("<IIIIQQQQQ")
"""Magic, version, page size, flags; root page and sequence; free list, number of pages, transaction."""
BRANCH = struct.Struct("<IIQ")
"""Where the key is, from here; its size; the page below."""
LEAF = struct.Struct("<IIII")
"""Flags; where the key is, from here; sizes of the key and of the value, which follows it."""
BUCKET = struct.Struct("<QQ")
"""The root page, 0 where that follows; a sequence."""
IS_BRANCH, IS_LEAF = 1, 2
IS_BUCKET = 1
DEEPEST = 64
TOMBSTONE = 18
"""Bytes of a revision under which a key was removed: two numbers with a line between, and a mark."""

VARINT, FIXED64, TEXT, FIXED32 = 0, 1, 2, 5
KEY_NAME, KEY_VALUE, KEY_LEASE = 1, 5, 6
LEASE_SECONDS = 2


class Item(NamedTuple):
    """One of a bucket: its key, and where its value is."""

    key: bytes
    offset: int
    size: int
    is_bucket: bool


class Key(NamedTuple):
    """As it is at the last revision."""

    name: bytes
    value: bytes
    lease: int
    """0: none."""


class _Message(NamedTuple):
    """Fields by their numbers."""

    numbers: dict[int, int]
    texts: dict[int, bytes]


class SnapshotFile:
    """The keys of a snapshot, to be closed. Raises :class:`Damaged`."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._met = 0
        self.revision = 0
        """Of the last change."""
        try:
            with _explained():
                self._read()
        except BaseException:
            self._data.close()
            raise

    def _read(self) -> None:
        self._page_size, root = self._head()
        self._buckets = {item.key: item for item in self._below(root * self._page_size) if item.is_bucket}
        self._places = self._latest()
        self.leases = self._found_leases()
        """Seconds that each lives, by its number."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._data.close()

    def keys(self, prefix: bytes) -> Iterator[Key]:
        """All that begin so, sorted."""
        for name in sorted(name for name in self._places if name.startswith(prefix)):
            with _explained():
                found = self._message(*self._places[name])
            yield Key(name, found.texts.get(KEY_VALUE, b""), found.numbers.get(KEY_LEASE, 0))

    def _head(self) -> tuple[int, int]:
        """The size of a page, and the number of the root's. What a member sends begins with the newest of its two."""
        magic, version, page_size, _, root, *_ = META.unpack_from(self._data, PAGE.size)
        if magic != MAGIC or version != 2 or page_size < PAGE.size:
            raise Damaged("the snapshot is no etcd member's file")
        return page_size, root

    def _below(self, offset: int, depth: int = 0) -> Iterator[Item]:
        """The items of the tree whose root is the page there. No page is met twice."""
        _, flags, count, _ = PAGE.unpack_from(self._data, offset)
        self._met += 1
        if depth > DEEPEST or self._met * PAGE.size > len(self._data) or not flags & (IS_BRANCH | IS_LEAF):
            raise Damaged("the snapshot's pages do not make up a tree")
        here = offset + PAGE.size
        for _ in range(count):
            if flags & IS_BRANCH:
                yield from self._below(BRANCH.unpack_from(self._data, here)[2] * self._page_size, depth + 1)
                here += BRANCH.size
            else:
                yield self._item(here)
                here += LEAF.size

    def _item(self, offset: int) -> Item:
        flags, distance, key_size, size = LEAF.unpack_from(self._data, offset)
        begin = offset + distance
        return Item(self._data[begin : begin + key_size], begin + key_size, size, bool(flags & IS_BUCKET))

    def _bucket(self, name: bytes) -> Iterator[Item]:
        found = self._buckets.get(name)
        if found is None:
            return iter(())
        root, _ = BUCKET.unpack_from(self._data, found.offset)
        return self._below(root * self._page_size if root else found.offset + BUCKET.size)

    def _latest(self) -> dict[bytes, tuple[int, int]]:
        """Where each key is that was not removed; changes come in the order of their revisions."""
        places: dict[bytes, tuple[int, int]] = {}
        for item in self._bucket(b"key"):
            name = self._message(item.offset, item.size, KEY_NAME).texts.get(KEY_NAME, b"")
            self.revision = int.from_bytes(item.key[:8], "big")
            if len(item.key) == TOMBSTONE:
                places.pop(name, None)
            else:
                places[name] = (item.offset, item.size)
        return places

    def _found_leases(self) -> dict[int, int]:
        found = {}
        for item in self._bucket(b"lease"):
            seconds = self._message(item.offset, item.size).numbers.get(LEASE_SECONDS, 0)
            found[int.from_bytes(item.key, "big", signed=True)] = seconds
        return found

    def _message(self, offset: int, size: int, last: int = 1 << 30) -> _Message:
        """Its fields up to the ``last``."""
        found = _Message({}, {})
        here, end = offset, offset + size
        while here < end:
            tag, here = self._varint(here)
            number, kind = tag >> 3, tag & 7
            if kind == VARINT:
                found.numbers[number], here = self._varint(here)
            elif kind == TEXT:
                length, here = self._varint(here)
                found.texts[number] = self._data[here : here + length]
                here += max(0, length)
            elif kind in (FIXED64, FIXED32):
                here += 8 if kind == FIXED64 else 4
            else:
                raise Damaged("the snapshot holds what is no message")
            if number >= last:
                break
        return found

    def _varint(self, here: int) -> tuple[int, int]:
        """A number, with its sign as 64 bits have it, and where it ends."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self._data[here]
            here += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (value - (1 << 64) if value >> 63 else value), here
        raise Damaged("the snapshot holds what is no number")


@contextmanager
def _explained() -> Iterator[None]:
    """What is no such file leads anywhere."""
    try:
        yield
    except (struct.error, IndexError, OverflowError) as error:
        raise Damaged("the snapshot cannot be read as an etcd member's file") from error
