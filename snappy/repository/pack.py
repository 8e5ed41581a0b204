"""Packs: sealed blobs one after another, then a sealed header that lists them, then the header's length.

The header has 37 bytes a blob (type, sealed length, id) or 41 for a compressed one (type, sealed length, plain
length, id); lengths are four bytes, little-endian. Source: restic's ``doc/design.rst``, "Pack Format".
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from collections.abc import Callable
from typing import NamedTuple

from snappy.errors import Damaged
from snappy.repository.crypto import OVERHEAD, SealingKey
from snappy.repository.format import MIB, BlobId, BlobLocation, BlobType, PackId

_LENGTH = struct.Struct("<I")
LENGTH_SIZE = _LENGTH.size
"""Bytes of the header's length at the end of a pack."""

_PLAIN = struct.Struct("<BI32s")
_COMPRESSED = struct.Struct("<BII32s")
_TYPES = {0: BlobType.DATA, 1: BlobType.TREE, 2: BlobType.DATA, 3: BlobType.TREE}

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
    """A pack ready for the store: its id is the SHA-256 of ``data``, which are ``size`` bytes."""

    id: PackId
    size: int
    blobs: list[BlobLocation]
    data: bytes | memoryview = b""
    """Where the builder's memory has it; empty for a pack that another process has stored."""


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
        self._blobs: list[PackedBlob] = []
        self.size = 0
        """Bytes of sealed blobs so far, without the header."""

    def __len__(self) -> int:
        return len(self._blobs)

    def add(self, kind: BlobType, blob: BlobId, sealed: bytes, uncompressed_length: int) -> None:
        """Append a sealed blob; ``uncompressed_length`` is 0 when it is not compressed."""
        self._blobs.append(PackedBlob(kind, blob, self.size, len(sealed), uncompressed_length))
        self._append(sealed)

    def absorb(self, other: PackBuilder) -> None:
        """Append all that ``other`` holds."""
        self._blobs += [blob._replace(offset=self.size + blob.offset) for blob in other._blobs]
        self._append(memoryview(other.memory)[: other.size])

    def finish(self, key: SealingKey) -> FinishedPack:
        """Close the pack with its header, read back before it is trusted. Nothing can be added then."""
        header = key.seal(encode_header(self._blobs))
        if decode_header(key.open(header)) != self._blobs:
            raise Damaged("a pack's header changed while it was sealed; the memory of this machine may be faulty")
        self._append(header)
        self._append(_LENGTH.pack(len(header)))
        data = memoryview(self.memory).toreadonly()[: self.size]
        name = hashlib.sha256(data).digest()
        return FinishedPack(name, len(data), [blob.in_pack(name) for blob in self._blobs], data)

    def _append(self, data: bytes | memoryview) -> None:
        end = self.size + len(data)
        self.memory[self.size : end] = data
        self.size = end


def encode_header(blobs: list[PackedBlob]) -> bytes:
    """The plain header of a pack."""
    return b"".join(_encode_entry(blob) for blob in blobs)


def _encode_entry(blob: PackedBlob) -> bytes:
    tree = 1 if blob.kind is BlobType.TREE else 0
    if blob.uncompressed_length:
        return _COMPRESSED.pack(2 + tree, blob.length, blob.uncompressed_length, blob.id)
    return _PLAIN.pack(tree, blob.length, blob.id)


def decode_header(header: bytes) -> list[PackedBlob]:
    """Read a plain header. Raises :class:`Damaged`."""
    blobs: list[PackedBlob] = []
    position = offset = 0
    while position < len(header):
        form = _COMPRESSED if header[position] in (2, 3) else _PLAIN
        blob = _decode_entry(header, position, form, offset)
        blobs.append(blob)
        position += form.size
        offset += blob.length
    return blobs


def _decode_entry(header: bytes, position: int, form: struct.Struct, offset: int) -> PackedBlob:
    if header[position] not in _TYPES:
        raise Damaged(f"a pack's header has a blob of the unknown type {header[position]}")
    try:
        fields = form.unpack_from(header, position)
    except struct.error as error:
        raise Damaged("a pack's header ends in the middle of an entry") from error
    plain = fields[2] if form is _COMPRESSED else 0
    return PackedBlob(_TYPES[fields[0]], fields[-1], offset, fields[1], plain)


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
