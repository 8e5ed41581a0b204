"""A restore of one disk's image to a disk: what the backup did not have is zeros afterwards, whatever was there.

The beginning, where partition tables and superblocks are, comes last: a disk that was restored in part mounts nowhere.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

from snappy.errors import BadOptions
from snappy.repository.entries import FileWriter, Node, Standing, StandingFile
from snappy.repository.format import MIB
from snappy.repository.paths import shown

HEAD = MIB
ABOUT = b"user.snappy.about"
"""The extended attribute of a file that tells of an image."""


class Disk(Protocol):
    """Where an image goes. Calls but for ``close`` come from several threads; they raise ``OSError``."""

    grain: int
    """Bytes: zeros are looked for in pieces of this size, which lie at multiples of it."""

    def write(self, offset: int, data: memoryview) -> None: ...

    def clear(self, offset: int, length: int) -> None:
        """Make it zeros, and free what it takes where that can be."""

    def finish(self, size: int) -> list[str]:
        """All ``size`` bytes are there: make them last, and what is beyond zeros. Returns what could not be kept."""

    def close(self) -> None:
        """Let go, and take back what was not finished, where that can be; may be called twice."""


OpenDisk = Callable[[Node, threading.Event], Disk]
"""Opens the disk for an image with that node; the event says that it need not any more. Raises any
:class:`snappy.errors.SnappyError`, or ``OSError``."""


class ImageSink:
    """See :class:`snappy.repository.entries.Sink`. The directories above the image are part of a name, and what lies
    beside it and only tells of it is left."""

    def __init__(self, open_disk: OpenDisk) -> None:
        self._open_disk, self._over = open_disk, threading.Event()
        self._writer: _Writer | None = None
        self._path = b""

    def standing(self, path: bytes, node: Node) -> Standing:
        return Standing.LEFT if ABOUT in node.xattrs else Standing.IN_THE_WAY

    def reuse(self, path: bytes, node: Node) -> StandingFile | None:
        return None

    def directory(self, path: bytes, node: Node) -> None:
        """A part of the image's name."""

    def file(self, path: bytes, node: Node) -> FileWriter:
        if self._writer is not None:
            raise BadOptions(
                f"the snapshot has more images than one: {shown(self._path)} and {shown(path)}",
                hint="name the one to restore with --include",
            )
        self._path, self._writer = path, _Writer(self._open_disk(node, self._over), node.size)
        return self._writer

    def link(self, path: bytes, existing: bytes) -> None:
        raise OSError(errno.EOPNOTSUPP, "it is no image of its own")

    def special(self, path: bytes, node: Node) -> None:
        raise OSError(errno.EOPNOTSUPP, f"a {node.type} is no image")

    def finish(self, path: bytes, node: Node) -> list[str]:
        return []

    def interrupt(self) -> None:
        """See :class:`snappy.sources.base.Interruptible`."""
        self._over.set()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.discard()


class _Writer:
    """See :class:`snappy.repository.entries.FileWriter`; all of the image is written."""

    def __init__(self, disk: Disk, size: int) -> None:
        self._disk, self._size = disk, size
        self._lock = threading.Lock()
        self._head: list[tuple[int, bytes]] = []
        self._zeros = b""
        if size:
            disk.clear(0, min(HEAD, size))

    def write_at(self, offset: int, data: bytes) -> None:
        if offset < HEAD:
            with self._lock:
                self._head.append((offset, data))
        else:
            self._put(offset, data)

    def _put(self, offset: int, data: bytes) -> None:
        if data is self._zeros:  # one blob, for all blocks where there is nothing
            self._disk.clear(offset, len(data))
            return
        view = memoryview(data)
        for start, end, is_zeros in pieces(offset, data, self._disk.grain):
            if is_zeros:
                self._disk.clear(offset + start, end - start)
                self._zeros = data if end - start == len(data) else self._zeros
            else:
                self._disk.write(offset + start, view[start:end])

    def finish(self) -> list[str]:
        for offset, data in self._head:
            self._put(offset, data)
        return self._disk.finish(self._size)

    def close(self) -> None:
        self._disk.close()

    def discard(self) -> None:
        self._disk.close()


def pieces(offset: int, data: bytes, grain: int) -> Iterator[tuple[int, int, bool]]:
    """Where in ``data``, that belongs at ``offset``, runs of zeros and of other bytes begin and end, and which is
    which; they meet at multiples of ``grain`` bytes."""
    zeros = bytes(grain)
    begun, was_zeros = 0, None
    position, end = 0, min(-offset % grain or grain, len(data))
    while position < end:
        is_zeros = data.startswith(zeros[: end - position], position)
        if was_zeros is not None and is_zeros is not was_zeros:
            yield begun, position, was_zeros
            begun = position
        was_zeros = is_zeros
        position, end = end, min(end + grain, len(data))
    if was_zeros is not None:
        yield begun, len(data), was_zeros
