"""A large file that workers read in parts: where the cutting of one part ends, whoever has least to do goes on, while
the blobs of the part are still being stored. The chunks are those of one worker that reads it all."""

from __future__ import annotations

import threading
from collections import deque
from typing import Protocol

from snappy.repository.blocks import Cut
from snappy.repository.chunker import LARGEST
from snappy.repository.entries import Recipe
from snappy.repository.format import MIB, BlobId

WORTH_PARTS = 32 * MIB
"""Bytes from which a file is read in parts."""


class Told(Protocol):
    """Who is told of a file that is read. The calls come from one thread at a time."""

    skip: int

    def begun(self, skipped: bool) -> None:
        """The reading begins; ``skipped`` says that it begins after the first ``skip`` bytes."""

    def read(self, blob: BlobId, size: int) -> None:
        """The next blob of it, and its plain bytes."""

    def done(self, changed: str) -> None:
        """That was all; ``changed`` says what happened to the file meanwhile, if anything."""

    def lost(self, why: str) -> None:
        """It cannot be read."""


class Wanted(Told, Protocol):
    """A file that a worker is to read."""

    recipe: Recipe
    size: int
    cut: Cut | None


class Relay:
    """Tells ``file`` of its parts in their order. Any thread may call."""

    def __init__(self, file: Wanted) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._parts: deque[FilePart] = deque()
        self._remark = ""
        self.is_lost = False

    def part(self, skip: int) -> FilePart:
        """The part that begins after so many bytes."""
        with self._lock:
            made = FilePart(self, self._file, skip)
            self._parts.append(made)
        return made

    def begun(self, part: FilePart, skipped: bool) -> None:
        if part.skip == self._file.skip:
            self._file.begun(skipped)
        elif not skipped:
            self.lost("it cannot be read in parts")

    def done(self, changed: str) -> None:
        """A part is read."""
        with self._lock:
            self._remark = self._remark or changed
            while self._parts and self._parts[0].is_done and not self.is_lost:
                self._tell(self._parts.popleft())

    def lost(self, why: str) -> None:
        """With one part the file is lost."""
        with self._lock:
            if not self.is_lost:
                self.is_lost = True
                self._file.lost(why)

    def _tell(self, part: FilePart) -> None:
        for blob, size in part.blobs:
            self._file.read(blob, size)
        if not self._parts:
            self._file.done(self._remark)


class FilePart:
    """One part, as the worker's hand sees it: a file that is wanted. Made by :meth:`Relay.part`."""

    def __init__(self, relay: Relay, file: Wanted, skip: int) -> None:
        self._relay = relay
        self.recipe: Recipe = file.recipe
        self.cut: Cut | None = None
        self.skip = skip
        self.size = min(LARGEST, max(0, file.size - skip))
        self.blobs: list[tuple[BlobId, int]] = []
        self.is_done = False

    def reached(self, offset: int) -> FilePart | None:
        """The part that begins at ``offset``, where this one ends; none is needed if the file is lost."""
        return None if self._relay.is_lost else self._relay.part(offset)

    def begun(self, skipped: bool) -> None:
        self._relay.begun(self, skipped)

    def read(self, blob: BlobId, size: int) -> None:
        self.blobs.append((blob, size))

    def done(self, changed: str) -> None:
        self.is_done = True
        self._relay.done(changed)

    def lost(self, why: str) -> None:
        self._relay.lost(why)
