"""The plug-in ``files`` in the contract, on btrfs: all files are as they were at one moment, whoever writes to them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.contract.sources.test_files import FilesGround
from tests.support.background import repeated
from tests.support.disks import BTRFS, disk
from tests.support.source_contract import Ground, SourceContract

pytestmark = [pytest.mark.btrfs, pytest.mark.loop]
ENDS = ("a-first", "z-last")


class BtrfsGround(FilesGround):
    """Beside the files with their SHA-256 two that a writer keeps equal: the first in the folder, and the last."""

    def __init__(self, disk: Path, elsewhere: Path) -> None:
        super().__init__(disk)
        self._disk, self._back = disk, elsewhere / "back"

    def options(self) -> dict[str, Any]:
        return super().options() | {"snapshot": "required"}

    @contextmanager
    def writing(self) -> Iterator[Callable[[], int]]:
        ends = [os.open(self._data / name, os.O_RDWR | os.O_CREAT) for name in ENDS]

        def write(count: int) -> None:
            for end in ends:
                os.pwrite(end, b"%012d" % count, 0)

        write(0)
        for end in ends:
            os.fsync(end)  # a file whose first bytes were never synced may be empty in a snapshot, as after a power cut
        try:
            with repeated(write) as written:
                yield written
        finally:
            for end in ends:
                os.close(end)

    def check(self, other: bool) -> None:
        folder = self._back / self._data.relative_to("/") if other else self._data
        first, last = (folder / name for name in ENDS)
        if first.exists():
            assert 0 <= int(first.read_text()) - int(last.read_text()) <= 1
            first.unlink()
            last.unlink()
        super().check(other)

    def leftovers(self) -> list[str]:
        return [name for name in os.listdir(self._disk) if name.startswith(".snappy")]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("btrfs")
    with disk(folder, 512 << 20, BTRFS) as made:
        yield BtrfsGround(made.place, folder)


class TestFilesOnBtrfs(SourceContract):
    """All that is asked of it."""
