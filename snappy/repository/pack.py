"""Packs: sealed blobs one after another, then a sealed header that lists them, then the header's length.

The header has 37 bytes a blob (type, sealed length, id) or 41 for a compressed one (type, sealed length, plain
length, id); lengths are four bytes, little-endian. Source: restic's ``doc/design.rst``, "Pack Format".
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Self

from snappy.errors import Damaged
from snappy.repository.crypto import OVERHEAD, SealingKey
from snappy.repository.format import MIB, BlobId, BlobLocation, BlobType, PackId

_LENGTH = struct.Struct("<I")
LENGTH_SIZE = _LENGTH.size
"""Bytes of the header's length at the end of a pack."""

_PLAIN = struct.Struct("<BI32s")
_COMPRESSED = struct.Struct("<BII32s")
_TYPES = {0: BlobType.DATA, 1: BlobType.TREE, 2: BlobType.DATA, 3: BlobType.TREE}
_COMPRESSED_TYPES = (2, 3)

LARGEST_HEADER = 16 * MIB
"""The largest header that restic reads, in bytes, without the length at its end."""

_AROUND = LARGEST_HEADER + LENGTH_SIZE
"""The most that a pack has beside its blobs, in bytes."""

MOST_BLOBS = (LARGEST_HEADER - OVERHEAD) // _COMPRESSED.size
_FIRST_READ = 15 * _COMPRESSED.size + OVERHEAD + LENGTH_SIZE

ReadRange = Callable[[int, int], bytes]
"""(offset, length) to that many bytes of one pack."""


class PackedBlob(NamedTuple):
    """A blob as a pack's header describes it; ``uncompressed_length`` is 0 where it is not compressed."""

    kind: BlobType
    id: BlobId
    offset: int
    length: int
    uncompressed_length: int

    def in_pack(self, pack: PackId) -> BlobLocation:
        """The same, with the pack it lies in."""
        return BlobLocation(self.kind, self.id, pack, self.offset, self.length, self.uncompressed_length)


class Unsealed(NamedTuple):
    """A blob as it lies in a pack, but for the seal: compressed, unless ``uncompressed_length`` is 0."""

    id: BlobId
    data: bytes
    uncompressed_length: int

    @property
    def plain_length(self) -> int:
        """Bytes."""
        return self.uncompressed_length or len(self.data)


class FinishedPack(NamedTuple):
    """A pack ready for the store: its id is the SHA-256 of ``data``, which are ``size`` bytes. Its blobs
    (``blob_count``, ``plain`` bytes) stand in its plain ``header``: as objects they take six times the memory."""

    id: PackId
    size: int
    blob_count: int
    plain: int
    header: bytes
    data: bytes | memoryview = b""
    """Where the builder's memory has it; empty for a pack that the store has."""

    @classmethod
    def of(cls, pack: PackId, size: int, blobs: Sequence[PackedBlob]) -> Self:
        """One that the store has, with these blobs in their order."""
        plain = sum(blob.uncompressed_length or blob.length - OVERHEAD for blob in blobs)
        return cls(pack, size, len(blobs), plain, encode_header(blobs))

    @property
    def sealed(self) -> int:
        """The bytes of its blobs as they lie there."""
        return self.size - end_size(len(self.header))

    def blobs(self) -> Iterator[BlobLocation]:
        """Each blob, in their order."""
        return (blob.in_pack(self.id) for blob in entries(self.header))


class PackMemory:
    """Blocks of memory that packs of ``pack_size`` bytes are put together in, each used again: a new one costs a page
    fault a page. The kernel gives what is written to, not all that a block could hold. Any thread may call."""

    def __init__(self, pack_size: int) -> None:
        self._room = 2 * pack_size  # the last blob is smaller than a pack, or has one of its own
        self._free: list[mmap.mmap] = []
        self._keeps = True

    def spare(self) -> None:
        """Keep none from now on: they are not needed often any more."""
        self._keeps = False
        self._free.clear()

    def take(self, blob: int = 0) -> mmap.mmap:
        """Room for a pack, also if it has nothing but one blob of so many bytes."""
        if blob > self._room:
            return _block(blob)
        try:
            return self._free.pop()
        except IndexError:
            return _block(self._room)

    def give_back(self, block: mmap.mmap) -> None:
        """Nobody reads it any more."""
        if self._keeps and len(block) == self._room + _AROUND:
            self._free.append(block)


def _block(room: int) -> mmap.mmap:
    return mmap.mmap(-1, room + _AROUND, flags=mmap.MAP_PRIVATE)


class PackBuilder:
    """Puts sealed blobs of one kind together in ``memory``. Not thread-safe. ``apart`` is for whoever uploads it."""

    def __init__(self, memory: mmap.mmap, *, apart: bool = False) -> None:
        self.apart, self.memory = apart, memory
        self._header = bytearray()
        self._count = self._plain = 0
        self.size = 0
        """Bytes of sealed blobs so far, without the header."""

    def __len__(self) -> int:
        return self._count

    def add(self, kind: BlobType, blob: BlobId, sealed: bytes, uncompressed_length: int) -> None:
        """Append a sealed blob; ``uncompressed_length`` is 0 when it is not compressed."""
        self._header += _encode_entry(kind, blob, len(sealed), uncompressed_length)
        self._count += 1
        self._plain += uncompressed_length or len(sealed) - OVERHEAD
        self._append(sealed)

    def absorb(self, other: PackBuilder) -> None:
        """Append all that ``other`` holds."""
        self._header += other._header
        self._count += other._count
        self._plain += other._plain
        self._append(memoryview(other.memory)[: other.size])

    def finish(self, key: SealingKey) -> FinishedPack:
        """Close the pack with its header, read back before it is trusted. Nothing can be added then."""
        header = bytes(self._header)
        sealed = key.seal(header)
        if key.open(sealed) != header:
            raise Damaged("a pack's header changed while it was sealed; the memory of this machine may be faulty")
        self._append(sealed)
        self._append(_LENGTH.pack(len(sealed)))
        data = memoryview(self.memory).toreadonly()[: self.size]
        return FinishedPack(hashlib.sha256(data).digest(), len(data), self._count, self._plain, header, data)

    def _append(self, data: bytes | memoryview) -> None:
        end = self.size + len(data)
        self.memory[self.size : end] = data
        self.size = end


def encode_header(blobs: Iterable[PackedBlob]) -> bytes:
    """The plain header of a pack."""
    return b"".join(_encode_entry(blob.kind, blob.id, blob.length, blob.uncompressed_length) for blob in blobs)


def _encode_entry(kind: BlobType, blob: BlobId, length: int, uncompressed_length: int) -> bytes:
    tree = 1 if kind is BlobType.TREE else 0
    if uncompressed_length:
        return _COMPRESSED.pack(2 + tree, length, uncompressed_length, blob)
    return _PLAIN.pack(tree, length, blob)


def decode_header(header: bytes) -> list[PackedBlob]:
    """Read a plain header. Raises :class:`Damaged`."""
    return list(entries(header))


def entries(header: bytes) -> Iterator[PackedBlob]:
    """The same, one by one."""
    position = offset = 0
    try:
        while position < len(header):
            kind = _TYPES[header[position]]
            if header[position] in _COMPRESSED_TYPES:
                _, length, plain, blob = _COMPRESSED.unpack_from(header, position)
                position += _COMPRESSED.size
            else:
                _, length, blob = _PLAIN.unpack_from(header, position)
                plain = 0
                position += _PLAIN.size
            yield PackedBlob(kind, blob, offset, length, plain)
            offset += length
    except KeyError:
        raise Damaged(f"a pack's header has a blob of the unknown type {header[position]}") from None
    except struct.error as error:
        raise Damaged("a pack's header ends in the middle of an entry") from error


def read_header(key: SealingKey, size: int, read: ReadRange) -> list[PackedBlob]:
    """The blobs of a pack of ``size`` bytes, read from its end in one or two calls of ``read``.

    Raises :class:`Damaged` when it is no pack, or one that fails its authentication.
    """
    end = read_end(size, read)
    return parse_header(open_end(key, end), size - len(end))


def end_size(header_size: int) -> int:
    """The bytes at a pack's end that are none of a blob's, where its plain header has ``header_size``."""
    return header_size + OVERHEAD + LENGTH_SIZE


def read_end(size: int, read: ReadRange, guess: int = _FIRST_READ) -> bytes:
    """The sealed header and its length; in one call of ``read`` if ``guess`` is enough. Raises :class:`Damaged`."""
    if size < end_size(_PLAIN.size):
        raise Damaged("the pack is too short")
    tail = read(size - min(size, guess), min(size, guess))
    length = _LENGTH.unpack(tail[-LENGTH_SIZE:])[0]
    whole = length + LENGTH_SIZE
    if not OVERHEAD < length <= LARGEST_HEADER or whole > size:
        raise Damaged("the pack ends with an impossible header length")
    if whole > len(tail):
        tail = read(size - whole, whole)
    return tail[-whole:]


def open_end(key: SealingKey, end: bytes) -> bytes:
    """The plain header. Raises :class:`Damaged`."""
    return key.open(memoryview(end)[:-LENGTH_SIZE])


def parse_header(header: bytes, size: int) -> list[PackedBlob]:
    """The blobs of a pack that has ``size`` bytes of them. Raises :class:`Damaged`."""
    blobs = decode_header(header)
    if blobs[-1].offset + blobs[-1].length != size:
        raise Damaged("a pack's header does not describe the pack")
    return blobs
