"""What programs of MariaDB write, as files that can be read once: through a file that grows, or one after another."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from snappy.sources.plugins.mariadb_server import explained
from snappy.sources.programs import Guard, Program

LOOK_SECONDS = 0.02


class Spooled(io.RawIOBase):
    """A dump that is written to a file as fast as the server gives it, and read at whatever pace: a server ends the
    session of who does not read for a minute. It cannot be read to its end unless the program ended well, and the
    program does not outlive this process, which nobody would tell that its file is of no use any more."""

    def __init__(self, path: Path, start: Callable[..., Program]) -> None:
        self._path, self._start = path, start
        self._program: Program | None = None
        self._guard: Guard | None = None
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def start(self) -> None:
        """Begin to dump."""
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            self._program = self._start(stdout=handle)
            self._guard = Guard(self._program)
        finally:
            os.close(handle)

    def has_begun(self) -> bool:
        """Whether its transaction has. What comes before is less than the program keeps before it writes."""
        return bool(os.fstat(self._file).st_size) or self._has_ended()

    def _has_ended(self) -> bool:
        return self._program is None or self._program.process.poll() is not None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            was_all = self._has_ended()  # asked first: what it has written last is then there
            size = os.readv(self._file, [buffer])
            if size or was_all:
                break
            time.sleep(LOOK_SECONDS)
        if not size and self._program:
            with explained():
                self._program.wait()
        return size

    def close(self) -> None:
        if not self.closed:
            if self._program:
                self._program.end()
            if self._guard:
                self._guard.leave()
            os.close(self._file)
            self._path.unlink(missing_ok=True)
        super().close()


class Chained(io.RawIOBase):
    """Files that follow each other as one; each is opened when the one before it was read."""

    def __init__(self, parts: Sequence[Callable[[], BinaryIO]]) -> None:
        self._parts = list(parts)
        self._part: BinaryIO | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while self._part or self._parts:
            if not self._part:
                self._part = self._parts.pop(0)()
            data = self._part.read(len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
            self._close_part()
        return 0

    def close(self) -> None:
        self._close_part()
        super().close()

    def _close_part(self) -> None:
        part, self._part = self._part, None
        if part:
            part.close()
