"""The plug-in ``block`` in the contract, with loop devices. It freezes nothing: of what is written beside a backup each
sector is whole, and no more."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.background import repeated
from tests.support.loops import loop
from tests.support.source_contract import Ground, Refused, SourceContract

MIB = 1 << 20
SIZE = 64 * MIB
SECTOR = 512
BESIDE = SIZE - 32 * SECTOR
"""Where sectors are written while a backup runs."""

pytestmark = pytest.mark.loop


class BlockGround:
    plugin = "block"
    changes_share = 0.05
    works_in_folder = False

    def __init__(self, device: Path, other: Path) -> None:
        self._devices = {False: device, True: other}
        self._filled = b""

    def settings(self) -> dict[str, dict[str, Any]]:
        return {}

    def options(self) -> dict[str, Any]:
        return {"path": str(self._devices[False])}

    def restore_options(self, other: bool) -> dict[str, Any]:
        return {"to": str(self._devices[other]), "overwrite": True}

    def restore_into(self, folder: Path) -> dict[str, Any] | None:
        return {"to": str(folder)}

    def fill(self, size: int) -> None:
        self._filled = random.Random(size).randbytes(size)
        self._put(MIB, self._filled)

    def change(self, share: float) -> None:
        size = int(len(self._filled) * share)
        begin = len(self._filled) // 3
        self._filled = self._filled[:begin] + os.urandom(size) + self._filled[begin + size :]
        self._put(MIB, self._filled)

    def writing(self) -> AbstractContextManager[Callable[[], int]]:
        return repeated(lambda count: self._put(BESIDE + count % 32 * SECTOR, bytes([count % 255]) * SECTOR))

    def _put(self, offset: int, data: bytes) -> None:
        with self._devices[False].open("r+b", buffering=0) as device:
            device.seek(offset)
            assert device.write(data) == len(data)
            os.fdatasync(device.fileno())

    def wipe(self) -> None:
        for device in self._devices.values():
            with device.open("r+b") as file:
                file.write(bytes(SIZE))

    def check(self, other: bool) -> None:
        content = self.content(other)
        assert content[MIB : MIB + len(self._filled)] == self._filled
        for start in range(BESIDE, SIZE, SECTOR):
            assert len(set(content[start : start + SECTOR])) == 1

    def content(self, other: bool) -> Any:
        return self._devices[other].read_bytes()

    def leftovers(self) -> list[str]:
        return []

    def refused(self) -> Sequence[Refused]:
        device = str(self._devices[False])
        return [
            Refused("a device that there is not", "source-missing", {"path": "/dev/no-such-device"}),
            Refused("no device", "bad-options", {"path": "/dev"}),
            Refused("a device that may not be overwritten", "bad-options", {"to": device}, "restore"),
        ]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("block")
    with ExitStack() as closing:
        devices: list[Path] = []
        for name in ("one", "other"):
            (folder / name).write_bytes(b"")
            os.truncate(folder / name, SIZE)
            devices.append(closing.enter_context(loop(folder / name)))
        yield BlockGround(*devices)


class TestBlock(SourceContract):
    """All that is asked of it."""
