"""What a generator makes, as a file."""

from __future__ import annotations

import io
from collections.abc import Generator
from typing import Any


class Generated(io.RawIOBase):
    """Reads ``pieces`` in order; closing it closes the generator. A piece that is empty is the end."""

    def __init__(self, pieces: Generator[bytes, None, None]) -> None:
        self._pieces, self._rest = pieces, memoryview(b"")

    def close(self) -> None:
        self._pieces.close()
        super().close()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size
