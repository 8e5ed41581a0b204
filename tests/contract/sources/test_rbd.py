"""The plug-in ``rbd`` in the contract, with a real cluster."""

from __future__ import annotations

import os
import random
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.ceph import POOL, Ceph, running
from tests.support.source_contract import Ground, Refused, SourceContract

MIB = 1 << 20
SIZE = 64 * MIB
FIRST, SECOND = 0, 60 * MIB
"""Where a number is written, and where the same number, but only when the first is."""

pytestmark = pytest.mark.ceph


class RbdGround:
    plugin = "rbd"
    changes_share = 0.05
    works_in_folder = False

    def __init__(self, ceph: Ceph) -> None:
        self._ceph = ceph
        self._filled = b""

    def settings(self) -> dict[str, dict[str, Any]]:
        wrong, nobody = self._ceph.folder / "wrong", self._ceph.folder / "nobody.conf"
        if not wrong.exists():
            self._ceph.run("ceph-authtool", "--create-keyring", str(wrong), "--gen-key", "-n", "client.admin")
            nobody.write_text("[global]\nmon host = [v1:127.0.0.1:9]\n")
        return {
            "default": self._ceph.settings(),
            "wrong": self._ceph.settings(keyring=str(wrong)),
            "down": self._ceph.settings(conf=str(nobody), timeout=1),
            "others": self._ceph.settings(pools=["others"]),
        }

    def options(self) -> dict[str, Any]:
        return {"pool": POOL, "image": "one"}

    def restore_options(self, other: bool) -> dict[str, Any]:
        return {"pool": POOL, "image": "other" if other else "one"}

    def restore_into(self, folder: Path) -> dict[str, Any] | None:
        return None

    def fill(self, size: int) -> None:
        self._filled = random.Random(size).randbytes(size)
        self._ceph.create("one", SIZE)
        with self._ceph.image("one") as image:
            image.write(self._filled, MIB)

    def change(self, share: float) -> None:
        size = int(len(self._filled) * share)
        begin = len(self._filled) // 3
        changed = os.urandom(size)
        self._filled = self._filled[:begin] + changed + self._filled[begin + size :]
        with self._ceph.image("one") as image:
            image.write(changed, MIB + begin)

    @contextmanager
    def writing(self) -> Iterator[Callable[[], int]]:
        over, count = threading.Event(), 0

        def write() -> None:
            nonlocal count
            with self._ceph.image("one") as image:
                while not over.is_set():
                    count += 1
                    for place in (FIRST, SECOND):
                        image.write(count.to_bytes(8, "big"), place)
                        image.flush()

        writer = threading.Thread(target=write)
        writer.start()
        try:
            yield lambda: count
        finally:
            over.set()
            writer.join()

    def wipe(self) -> None:
        self._ceph.remove_all()

    def check(self, other: bool) -> None:
        content = self.content(other)
        assert content[MIB : MIB + len(self._filled)] == self._filled
        first, second = (int.from_bytes(content[place : place + 8], "big") for place in (FIRST, SECOND))
        assert 0 <= first - second <= 1

    def content(self, other: bool) -> Any:
        with self._ceph.image("other" if other else "one", read_only=True) as image:
            return image.read(0, SIZE)

    def leftovers(self) -> list[str]:
        names = self._ceph.names()
        snapshots = [snapshot for name in names for snapshot in self._ceph.snapshots(name)]
        return [name for name in [*names, *snapshots] if "unfinished" in name or "-reading-" in name]

    def refused(self) -> Sequence[Refused]:
        return [
            Refused("another's key", "source-denied", self.options() | {"cluster": "wrong"}),
            Refused("a cluster that is down", "source-unavailable", self.options() | {"cluster": "down"}),
            Refused("a cluster that there is not", "bad-options", self.options() | {"cluster": "none"}),
            Refused("a pool that is not for jobs", "bad-options", self.options() | {"cluster": "others"}),
            Refused("an image that there is not", "source-missing", self.options() | {"image": "nothing"}),
            Refused("an image that may not be overwritten", "bad-options", self.options(), "restore"),
        ]


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as ceph:
        yield RbdGround(ceph)


class TestRbd(SourceContract):
    """All that is asked of it."""
