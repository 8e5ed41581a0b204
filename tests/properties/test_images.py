"""Whatever is written to a disk between two backups of it, each snapshot holds just what was there; and what was not
written is not read."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from snappy.repository.blocks import SMALLEST_BLOCK
from tests.support import engine
from tests.support.fake_disk import FakeDisk, back_up, content_of

BLOCKS = 6
SPARES = 3
"""Blocks more that an image may grow by."""

Write = tuple[int, int, int]
"""Where in 512 bytes, how much of them, and which byte."""

sectors = SMALLEST_BLOCK // 512
sizes = st.integers(1, (BLOCKS + SPARES) * sectors).map(lambda count: count * 512)
writes = st.lists(
    st.tuples(st.integers(0, BLOCKS * sectors), st.integers(1, 2 * sectors), st.integers(0, 3)), max_size=4
)
rounds = st.lists(st.tuples(st.none() | sizes, writes), min_size=1, max_size=5)


def write(disk: FakeDisk, size: int | None, written: list[Write]) -> None:
    """Resize the disk and write to it, as far as it reaches."""
    if size is not None:
        disk.content = disk.content[:size].ljust(size, b"\0")
    for sector, count, byte in written:
        start, end = sector * 512, min((sector + count) * 512, len(disk.content))
        disk.content[start:end] = bytes([byte]) * max(0, end - start)


@given(size=sizes, history=rounds, kept=st.lists(st.booleans(), min_size=5, max_size=5))
@settings(max_examples=60, deadline=None)
def test_each_snapshot_is_what_the_disk_was(
    size: int, history: list[tuple[int | None, list[Write]]], kept: list[bool]
) -> None:
    disk = FakeDisk(bytes(size))
    parent = None
    with engine.new_repository() as repository:
        for (resized, written), stays in zip(history, kept, strict=False):
            write(disk, resized, written)
            moment = disk.now()
            parent = back_up(repository, moment.entry(), parent=parent).snapshot
            assert content_of(repository, parent) == moment.content
            if not stays:
                del disk.moments[moment.point]


@given(before=writes, after=writes)
@settings(max_examples=40, deadline=None)
def test_no_more_is_read_than_the_blocks_that_were_written(before: list[Write], after: list[Write]) -> None:
    disk = FakeDisk(bytes(BLOCKS * SMALLEST_BLOCK))
    with engine.new_repository() as repository:
        write(disk, None, before)
        first = back_up(repository, disk.now().entry()).snapshot
        old, disk.read = bytes(disk.content), 0
        write(disk, None, after)
        second = back_up(repository, disk.now().entry(), parent=first)
        starts = range(0, len(old), SMALLEST_BLOCK)
        changed = [at for at in starts if old[at : at + SMALLEST_BLOCK] != disk.content[at : at + SMALLEST_BLOCK]]
        assert disk.read == second.bytes_read == len(changed) * SMALLEST_BLOCK
        assert content_of(repository, second.snapshot) == disk.content
