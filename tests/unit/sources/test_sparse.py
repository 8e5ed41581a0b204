"""What is written into a file of holes, block by block: by the way past memory, and where that is none."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from snappy.sources import sparse
from snappy.sources.sparse import BLOCK, PASSED_ON, write_sparse

PWRITEV = os.pwritev


@pytest.fixture
def handle(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield opened
    os.close(opened)


def fails(error: Exception) -> object:
    def pwritev(*_: object) -> int:
        raise error

    return pwritev


def does_half(handle: int, buffers: Sequence[memoryview], offset: int, _flags: int) -> int:
    return os.pwrite(handle, buffers[0][: len(buffers[0]) // 2], offset)


@pytest.mark.parametrize(
    "pwritev",
    [
        PWRITEV,
        does_half,
        fails(OSError(errno.EOPNOTSUPP, "not on this file system")),
        fails(NotImplementedError("not in this C library")),
    ],
)
@pytest.mark.parametrize("start", [0, 1, BLOCK - 1, BLOCK, 5 * BLOCK + 17])
def test_neighbours_meet_in_the_middle_of_a_block(
    handle: int, start: int, pwritev: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwritev", pwritev)
    pieces = [random.Random(size).randbytes(size) for size in (PASSED_ON - 1, PASSED_ON, PASSED_ON + 9, 3 * PASSED_ON)]
    offsets = [start + sum(map(len, pieces[:number])) for number in range(len(pieces))]
    for offset, piece in reversed(list(zip(offsets, pieces, strict=True))):
        write_sparse(handle, offset, piece)
    assert os.pread(handle, 1 << 30, 0) == bytes(start) + b"".join(pieces)


def test_only_whole_blocks_go_past_memory(handle: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that is gone from memory would be read again for its other part."""
    passed = []

    def pwritev(_handle: int, buffers: Sequence[memoryview], offset: int, flags: int) -> int:
        passed.append((offset, len(buffers[0]), flags))
        return os.pwrite(handle, buffers[0], offset)

    monkeypatch.setattr(os, "pwritev", pwritev)
    write_sparse(handle, 100, b"x" * (PASSED_ON + BLOCK))
    write_sparse(handle, 1 << 20, b"x" * (PASSED_ON - 1))
    assert passed == [(BLOCK, PASSED_ON - BLOCK + BLOCK, sparse.DONT_CACHE)]


def test_what_is_wrong_with_the_disk_is_said(handle: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "pwritev", full)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="full"):
        write_sparse(handle, 0, b"x" * PASSED_ON)


def test_zeros_stay_holes_between_large_pieces(handle: int) -> None:
    piece = b"x" * PASSED_ON
    write_sparse(handle, 0, piece + bytes(16 * PASSED_ON) + piece)
    assert os.fstat(handle).st_blocks * 512 < 4 * PASSED_ON
    assert os.pread(handle, 1 << 30, 0) == piece + bytes(16 * PASSED_ON) + piece
