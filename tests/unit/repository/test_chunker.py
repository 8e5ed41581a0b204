from __future__ import annotations

import io
import random
from collections.abc import Iterator

import pytest

from snappy.repository.chunker import LARGEST, SMALLEST, ZEROS, Chunker, Readable, name_of
from snappy.repository.format import blob_id

MIB = 1 << 20
DATA = random.Random(1).randbytes(24 * MIB)


def chunks(file: Readable, seed: int = 0) -> Iterator[bytes]:
    return Chunker(seed).chunks(file)


class Trickle:
    """A stream that gives fewer bytes than asked for."""

    def __init__(self, data: bytes, most: int) -> None:
        self._file = io.BytesIO(data)
        self._most = most
        self.largest_read = 0

    def read(self, size: int, /) -> bytes:
        self.largest_read = max(self.largest_read, size)
        return self._file.read(min(size, self._most))


@pytest.mark.parametrize("size", [0, 1, SMALLEST - 1, SMALLEST, SMALLEST + 1, MIB, 24 * MIB])
def test_the_chunks_are_the_file(size: int) -> None:
    found = list(chunks(io.BytesIO(DATA[:size])))
    assert b"".join(found) == DATA[:size]
    assert all(len(chunk) <= LARGEST for chunk in found)
    assert all(len(chunk) >= SMALLEST for chunk in found[:-1])
    assert all(found)


def test_small_files_are_one_chunk() -> None:
    assert list(chunks(io.BytesIO(DATA[: SMALLEST - 1]))) == [DATA[: SMALLEST - 1]]


def test_zeros_are_cut_at_the_largest_size() -> None:
    assert [len(chunk) for chunk in chunks(io.BytesIO(bytes(20 * MIB)))] == [8 * MIB, 8 * MIB, 4 * MIB]


@pytest.mark.parametrize("place", [None, 0, 8 * MIB - 1])
def test_zeros_are_told_from_what_is_nearly_so(place: int | None) -> None:
    data = bytearray(8 * MIB)
    if place is not None:
        data[place] = 1
    (found,) = chunks(io.BytesIO(data))
    assert found == data
    assert (found is ZEROS) == (place is None)
    assert name_of(found) == blob_id(bytes(data))


@pytest.mark.parametrize("most", [1000, 65_536, 3 * MIB])
def test_how_a_stream_is_read_does_not_matter(most: int) -> None:
    stream = Trickle(DATA[: 8 * MIB], most)
    assert list(chunks(stream)) == list(chunks(io.BytesIO(DATA[: 8 * MIB])))
    assert stream.largest_read <= 2 * LARGEST


def test_an_insertion_moves_few_chunks() -> None:
    before = set(chunks(io.BytesIO(DATA)))
    after = set(chunks(io.BytesIO(DATA[: 5 * MIB] + b"inserted" + DATA[5 * MIB :])))
    assert len(after - before) <= 3 < len(after)


def test_the_seed_decides_where_files_are_cut() -> None:
    lengths = {tuple(len(chunk) for chunk in chunks(io.BytesIO(DATA), seed)) for seed in (0, 1, 0x25B468838DCB75)}
    assert len(lengths) == 3
    assert list(chunks(io.BytesIO(DATA), 7)) == list(chunks(io.BytesIO(DATA), 7))


def test_two_files_can_be_cut_at_a_time() -> None:
    chunker = Chunker()
    one, other = DATA[: 9 * MIB], DATA[9 * MIB : 18 * MIB]
    pairs = list(zip(chunker.chunks(io.BytesIO(one)), chunker.chunks(io.BytesIO(other)), strict=False))
    assert [first for first, _ in pairs] == list(chunks(io.BytesIO(one)))[: len(pairs)]
    assert [second for _, second in pairs] == list(chunks(io.BytesIO(other)))[: len(pairs)]


def test_where_a_file_is_cut_does_not_change_from_version_to_version() -> None:
    data = DATA[: 6 * MIB] + bytes(9 * MIB) + DATA[6 * MIB : 7 * MIB]
    assert [len(chunk) for chunk in chunks(io.BytesIO(data))] == [
        *(1521776, 1829765, 1437770, 868991),
        *(8388608, 1921295, 809011),
    ]


PARTED = [DATA, DATA[: 3 * MIB] + bytes(20 * MIB) + DATA[:MIB], bytes(LARGEST), DATA[:LARGEST], DATA[:9], b""]


@pytest.mark.parametrize("data", PARTED, ids=range(len(PARTED)))
def test_parts_are_cut_as_the_whole_is(data: bytes) -> None:
    offset, cut, is_all = 0, list[bytes](), False
    while not is_all:
        part, is_all = Chunker(7).part(io.BytesIO(data[offset:]))
        offset += sum(map(len, part))
        cut += part
    assert cut == list(chunks(io.BytesIO(data), 7))
