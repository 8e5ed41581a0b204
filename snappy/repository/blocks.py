"""Cutting a disk's image into blocks of one size: a change moves no more than the blocks that it touches, for nothing
is ever inserted into a disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from snappy.repository.entries import Extent
from snappy.repository.format import MIB

SMALLEST_BLOCK = 128 << 10
LARGEST_BLOCK = MIB
MANY_BLOCKS = 1 << 17
"""Blocks of an image that have to be more before they become larger: each is named in every snapshot."""
READ_TOGETHER = 2 * MIB


class Cut(NamedTuple):
    """What to read of an image: these ``runs``, each of which begins where a block does. The last block of an image may
    be smaller."""

    block: int
    runs: list[Extent]


def block_for(size: int) -> int:
    """The block, in bytes, for an image of so many."""
    block = SMALLEST_BLOCK
    while block < LARGEST_BLOCK and size > block * MANY_BLOCKS:
        block *= 2
    return block


def is_block(size: int) -> bool:
    """Whether an image may be cut into blocks of so many bytes."""
    return SMALLEST_BLOCK <= size <= LARGEST_BLOCK and not size & (size - 1)


def blocks(file: BinaryIO, cut: Cut) -> Iterator[bytes]:
    """The blocks, read from where they lie in ``file``. Raises ``OSError`` where it has become shorter."""
    for offset, length in cut.runs:
        file.seek(offset)
        for left in range(length, 0, -READ_TOGETHER):
            read = memoryview(_exactly(file, min(left, READ_TOGETHER)))
            for start in range(0, len(read), cut.block):
                yield bytes(read[start : start + cut.block])


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    while len(data) < size:
        more = file.read(size - len(data))
        if not more:
            raise OSError("it became shorter while it was read")
        data += more
    return data
