"""Sinks that worker processes of a restore bring files into for a test: they fail, or wait, by the names of files."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

from snappy.repository import makers
from snappy.repository.entries import Node, Recipe
from snappy.sources.local_sink import LocalSink
from snappy.sources.restored_local_file import LocalFile

WAITING = "waiting"
"""Beside the place: the process id of a worker that waits for ever."""


class Troubled(LocalSink):
    """Of files named ``bad`` or ``full`` a worker makes none, at ``wait`` it stops."""

    def __init__(self, place: bytes) -> None:
        super().__init__(place, owner=None)
        self.place = place

    def recipe(self) -> Recipe:
        return Recipe(makers.name_of(InWorker), (self.place,))


class InWorker(Troubled):
    def file(self, path: bytes, node: Node) -> LocalFile:
        if node.name == b"bad":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if node.name == b"full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if node.name == b"wait":
            beside = Path(os.fsdecode(self.place)).with_name(WAITING)
            beside.with_suffix(".new").write_text(str(os.getpid()))
            beside.with_suffix(".new").rename(beside)
            threading.Event().wait()
        return super().file(path, node)
