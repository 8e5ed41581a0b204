"""A file in the contract of source plug-ins: what a ground has that backs up one."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from tests.support.background import repeated

DIGEST = 32


class ReplacedFile:
    """It begins with the SHA-256 of the rest, and is replaced in one step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.here, self.there = folder / "here", folder / "there"
        self._random = random.Random(1)

    def fill(self, size: int) -> None:
        self._write(self._random.randbytes(size))

    def change(self, share: float) -> None:
        old = self.here.read_bytes()[DIGEST:]
        new = self._random.randbytes(int(len(old) * share))
        self._write(new + old[len(new) :])

    def writing(self) -> AbstractContextManager[Callable[[], int]]:
        size = self.here.stat().st_size - DIGEST
        return repeated(lambda _: self.fill(size))

    def wipe(self) -> None:
        shutil.rmtree(self.folder)
        self.folder.mkdir()

    def check(self, other: bool) -> None:
        data = self.content(other)
        assert hashlib.sha256(data[DIGEST:]).digest() == data[:DIGEST]

    def content(self, other: bool) -> bytes:
        return (self.there if other else self.here).read_bytes()

    def _write(self, data: bytes) -> None:
        made = self.folder / "making"
        made.write_bytes(hashlib.sha256(data).digest() + data)
        os.replace(made, self.here)
