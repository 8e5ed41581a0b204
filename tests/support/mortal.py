"""Child processes that do not outlive a test run, however that ends."""

from __future__ import annotations

import ctypes
import signal

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """For ``preexec_fn``: the kernel kills the child when the thread that started it is gone (prctl(2), Linux).

    Start it in a thread that lasts as long as it is needed, so never by :func:`asyncio.to_thread`.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
