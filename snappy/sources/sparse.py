"""Writes into a file that is all holes, and leaves holes where the data are zeros."""

from __future__ import annotations

import os

BLOCK = 4096
ZEROS = bytes(BLOCK)


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
    """``pwrite`` until all is written; the kernel may take less at a time."""
    while data:
        written = os.pwrite(handle, data, offset)
        offset += written
        data = data[written:]
