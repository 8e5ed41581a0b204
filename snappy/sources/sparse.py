"""Writes into a file that is all holes, and leaves holes where the data are zeros."""

from __future__ import annotations

import os
from contextlib import suppress

BLOCK = 4096
ZEROS = bytes(BLOCK)
PASSED_ON = 256 << 10
"""So many bytes at once need not stay in memory when they are written."""
DONT_CACHE = 0x80
"""``RWF_DONTCACHE`` of Linux 6.14 and newer: pages go to the disk at once, and are free as soon as they are there."""


def write_sparse(handle: int, offset: int, data: bytes) -> None:
    """Write ``data`` at ``offset``, except for blocks of the file that are zeros. The file must read as zeros there.

    The first and last block may be partial; a partial block of zeros is left out as well.
    """
    view = memoryview(data)
    begun = 0
    position, end = 0, min(-offset % BLOCK, len(data)) or min(BLOCK, len(data))
    while position < end:
        if data[position] == 0 and data.startswith(ZEROS[: end - position], position):
            write_all(handle, offset + begun, view[begun:position])
            begun = end
        position, end = end, min(end + BLOCK, len(data))
    write_all(handle, offset + begun, view[begun:])


def write_all(handle: int, offset: int, data: memoryview) -> None:
    """``pwrite`` until all is written; the kernel may take less at a time.

    What is large passes through memory: what a restore brings would take the place of what the machine works with, and
    to find pages for it costs more than to write it. Its first and last block stay there until their rest has come.
    """
    if len(data) >= PASSED_ON:
        head = -offset % BLOCK
        whole = len(data) - (offset + len(data)) % BLOCK
        _write(handle, offset, data[:head])
        passed = head + _pass_on(handle, offset + head, data[head:whole])
        offset, data = offset + passed, data[passed:]
    _write(handle, offset, data)


def _write(handle: int, offset: int, data: memoryview) -> None:
    while data:
        written = os.pwrite(handle, data, offset)
        offset += written
        data = data[written:]


def _pass_on(handle: int, offset: int, blocks: memoryview) -> int:
    """How much of ``blocks`` is written: none where the C library, the kernel or the file system cannot do so. Whatever
    else is wrong, such as a full disk, the plain write that follows raises."""
    with suppress(OSError, NotImplementedError):
        return os.pwritev(handle, [blocks], offset, DONT_CACHE)
    return 0
