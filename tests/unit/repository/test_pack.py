from __future__ import annotations

import hashlib
import struct
import tracemalloc

import pytest

from snappy.errors import Damaged
from snappy.repository.crypto import OVERHEAD, SealingKey
from snappy.repository.format import MIB, BlobType
from snappy.repository.pack import (
    FinishedPack,
    PackBuilder,
    PackedBlob,
    PackMemory,
    decode_header,
    encode_header,
    read_header,
)

KEY = SealingKey(b"e" * 32, b"k" * 16, b"r" * 16)


def built(count: int, kind: BlobType = BlobType.DATA) -> FinishedPack:
    builder = PackBuilder(PackMemory(MIB).take())
    for number in range(count):
        builder.add(kind, bytes([number]) * 32, KEY.seal(b"x" * number), number % 2 * 1000)
    pack = builder.finish(KEY)
    return pack._replace(data=bytes(pack.data))


def read(pack: bytes) -> list[PackedBlob]:
    return read_header(KEY, len(pack), lambda offset, length: pack[offset : offset + length])


@pytest.mark.parametrize("count", [1, 2, 15, 16, 200])
@pytest.mark.parametrize("kind", list(BlobType))
def test_a_pack_describes_itself(count: int, kind: BlobType) -> None:
    pack = built(count, kind)
    assert pack.id == hashlib.sha256(pack.data).digest()
    found = read(pack.data)
    assert [blob.in_pack(pack.id) for blob in found] == list(pack.blobs())
    for number, blob in enumerate(found):
        assert KEY.open(pack.data[blob.offset : blob.offset + blob.length]) == b"x" * number


def test_the_header_is_restics() -> None:
    plain = PackedBlob(BlobType.TREE, b"i" * 32, 0, 7, 0)
    packed = PackedBlob(BlobType.DATA, b"j" * 32, 7, 9, 300)
    header = b"\x01" + struct.pack("<I", 7) + b"i" * 32 + b"\x02" + struct.pack("<II", 9, 300) + b"j" * 32
    assert encode_header([plain, packed]) == header
    assert decode_header(header) == [plain, packed]


def test_most_headers_are_read_in_one_go() -> None:
    reads: list[tuple[int, int]] = []
    for pack in (built(10).data, built(100).data):

        def counted(offset: int, length: int, pack: bytes = pack) -> bytes:
            reads.append((offset, length))
            return pack[offset : offset + length]

        read_header(KEY, len(pack), counted)
    assert len(reads) == 1 + 2


def test_absorb_joins_two_packs() -> None:
    memory = PackMemory(MIB)
    one, other = PackBuilder(memory.take()), PackBuilder(memory.take())
    one.add(BlobType.DATA, b"1" * 32, b"first", 0)
    other.add(BlobType.DATA, b"2" * 32, b"second", 9)
    one.absorb(other)
    pack = one.finish(KEY)
    assert bytes(pack.data[:11]) == b"firstsecond"
    assert [(blob.offset, blob.length) for blob in pack.blobs()] == [(0, 5), (5, 6)]
    assert (pack.blob_count, pack.sealed) == (2, 11)


def test_what_a_pack_lists_takes_little_memory() -> None:
    builder, sealed, count = PackBuilder(PackMemory(MIB).take()), bytes(40), 10_000
    tracemalloc.start()
    try:
        for number in range(count):
            builder.add(BlobType.DATA, number.to_bytes(32, "big"), sealed, 100)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 60 * count


def test_memory_that_was_given_back_is_used_again() -> None:
    memory = PackMemory(MIB)
    first, second = memory.take(), memory.take()
    assert first is not second
    memory.give_back(first)
    assert memory.take() is first
    memory.spare()
    memory.give_back(first)
    assert memory.take() is not first


def test_a_blob_larger_than_a_pack_has_memory_of_its_own() -> None:
    memory, large = PackMemory(1000), KEY.seal(bytes(3 * MIB))
    block = memory.take(len(large))
    builder = PackBuilder(block)
    builder.add(BlobType.TREE, b"1" * 32, large, 0)
    pack = builder.finish(KEY)
    assert KEY.open(pack.data[: len(large)]) == bytes(3 * MIB)
    memory.give_back(block)
    assert memory.take() is not block


def test_a_pack_says_how_much_it_holds() -> None:
    pack = built(16)
    blobs = list(pack.blobs())
    assert (pack.blob_count, pack.sealed) == (16, sum(blob.length for blob in blobs))
    assert pack.plain == 8 * 1000 + sum(range(0, 16, 2))
    stored = FinishedPack.of(pack.id, pack.size, read(pack.data))
    assert stored == pack._replace(data=b"")


@pytest.mark.parametrize("header", [b"\x00" * 36, b"\x02" * 40, b"\x04" + bytes(40), b"\x00" * 38])
def test_a_bad_header_is_refused(header: bytes) -> None:
    with pytest.raises(Damaged):
        decode_header(header)


def with_length(pack: bytes, length: int) -> bytes:
    return pack[:-4] + struct.pack("<I", length)


@pytest.mark.parametrize(
    "pack",
    [
        b"",
        bytes(72),
        with_length(built(3).data, 0),
        with_length(built(3).data, OVERHEAD),
        with_length(built(3).data, 1 << 31),
        with_length(built(3).data, 50),
        built(3).data[1:],
        b"x" + built(3).data,
        built(3).data[:-10] + b"x" + built(3).data[-9:],
    ],
)
def test_what_is_no_pack_is_refused(pack: bytes) -> None:
    with pytest.raises(Damaged):
        read(pack)
