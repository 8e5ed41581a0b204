"""The plug-in ``files`` in the contract: each file that was there is whole, whoever adds files meanwhile."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.support.background import repeated
from tests.support.source_contract import Ground, Refused, SourceContract

FILES = 16
DIGEST = 32


class FilesGround:
    """Files that begin with their SHA-256. Restored to another folder, what was in ``data`` lies in ``back``."""

    plugin = "files"
    changes_share = 0.2
    works_in_folder = False

    def __init__(self, folder: Path) -> None:
        self._data, self._back, self._making = folder / "data", folder / "back", folder / "making"
        self._random, self._size = random.Random(1), 0

    def settings(self) -> dict[str, dict[str, Any]]:
        return {}

    def options(self) -> dict[str, Any]:
        return {"paths": [str(self._data)]}

    def restore_options(self, other: bool) -> dict[str, Any]:
        return {"to": str(self._back) if other else "/"}

    def restore_into(self, folder: Path) -> dict[str, Any] | None:
        return {"to": str(folder)}

    def fill(self, size: int) -> None:
        self._size = size // FILES
        for number in range(FILES):
            self._write(f"kept-{number:02}", self._size)

    def change(self, share: float) -> None:
        self._write("kept-00", max(1, int(share * self._size * FILES)))

    def writing(self) -> AbstractContextManager[Callable[[], int]]:
        def write(number: int) -> None:
            self._write(f"new-{number:06}", 64_000)
            time.sleep(0.002)  # else the folder has too many to be compared

        return repeated(write)

    def wipe(self) -> None:
        for folder in (self._data, self._back):
            shutil.rmtree(folder, ignore_errors=True)
        self._data.mkdir()

    def check(self, other: bool) -> None:
        found = self.content(other)
        assert {f"kept-{number:02}" for number in range(FILES)} <= set(found)
        for name, data in found.items():
            assert hashlib.sha256(data[DIGEST:]).digest() == data[:DIGEST], name

    def content(self, other: bool) -> dict[str, bytes]:
        folder = self._back / self._data.relative_to("/") if other else self._data
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}

    def leftovers(self) -> list[str]:
        return []

    def refused(self) -> Sequence[Refused]:
        return [
            Refused("what there is not", "source-missing", {"paths": [str(self._data / "no")]}),
            Refused("no path", "bad-options", {"paths": []}),
            Refused("a place below a file", "source", {"to": str(self._data / "kept-00" / "no")}, "restore"),
        ]

    def _write(self, name: str, size: int) -> None:
        """In one step, as seen by others."""
        data = self._random.randbytes(size)
        self._making.write_bytes(hashlib.sha256(data).digest() + data)
        os.replace(self._making, self._data / name)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return FilesGround(tmp_path_factory.mktemp("files"))


class TestFiles(SourceContract):
    """All that is asked of it."""
