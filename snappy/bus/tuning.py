"""What makes large frames cheap in this process: a larger socket buffer in nats-py, and an allocator that keeps memory.

Stock settings cost a wake-up for every 32 KiB and a page fault for every page of every frame. Measured with 1 MiB
frames: a third less CPU at the receiver from the buffer, two thirds less at the sender from the allocator.
"""

from __future__ import annotations

import ctypes

import nats.aio.client

BUFFER_BYTES = 1 << 20

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEEP_BYTES = 512 << 20
_MMAP_FROM_BYTES = 32 << 20


def tune_process() -> bool:
    """Tune this process for data; call it before connecting. Whether all of it took hold (glibc, a known nats-py)."""
    buffered = hasattr(nats.aio.client, "DEFAULT_BUFFER_SIZE")
    if buffered:
        nats.aio.client.DEFAULT_BUFFER_SIZE = BUFFER_BYTES
    return _keep_memory() and buffered


def _keep_memory() -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _MMAP_FROM_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES))
