"""A file of a snapshot as Python's files are."""

from __future__ import annotations

import io
import os
from typing import Any

from snappy.repository.stored_file import StoredFile

BUFFER = 128 * 1024
"""Bytes that a small read brings. What lies in the same blob costs no fetch."""


class SnapshotFile(io.BufferedReader):
    """To be read at any offset, by any thread."""

    def __init__(self, path: str, stored: StoredFile, info: dict[str, Any]) -> None:
        super().__init__(_Raw(stored), BUFFER)
        self.path, self.size, self._info = path, stored.size, info

    def info(self) -> dict[str, Any]:
        """What the filesystem's ``info`` says of it."""
        return self._info


class _Raw(io.RawIOBase):
    def __init__(self, stored: StoredFile) -> None:
        self._stored, self._position = stored, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stored.read(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._stored.size}[whence]
        if start + offset < 0:
            raise ValueError(f"{start + offset} is before the file")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position
