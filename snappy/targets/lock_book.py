"""Who may remove which lock: whoever wrote it, and whoever the core names it to.

A lock is sealed, so a target cannot read whose it is; it remembers under which grant each was written. What it does
not remember (it was started anew, another replica took the lock) only a grant that names the lock removes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from snappy.bus.grants import Grant

REMEMBERED = 10_000


class LockBook:
    """The locks that were written since the target was started. Any thread may call any method."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._writers: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._lock = threading.Lock()

    def wrote(self, name: str, grant: Grant | None) -> None:
        """A lock was written under ``grant``; None: grants are off."""
        if grant is None:
            return
        with self._lock:
            self._writers[name] = _writer(grant)
            while len(self._writers) > self._remembered:
                self._writers.popitem(last=False)

    def may_remove(self, name: str, grant: Grant | None) -> bool:
        """Whether ``grant`` names the lock, or its job and caller wrote it."""
        return grant is None or name in grant.locks or self.is_writer(name, grant)

    def is_writer(self, name: str, grant: Grant) -> bool:
        """Whether the job and caller of ``grant`` wrote it."""
        with self._lock:
            return self._writers.get(name) == _writer(grant)

    def removed(self, name: str) -> None:
        with self._lock:
            self._writers.pop(name, None)


def _writer(grant: Grant) -> tuple[str, str]:
    return grant.caller, grant.job
