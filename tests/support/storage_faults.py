"""Storage that fails: a wrapper before any fsspec filesystem, inside a target process, told what to do through files.

::

    storage = FaultyStorage(folder)                              # the test's end
    programs = {"vault": storage.program}                        # runs: python -m tests.support.storage_faults FOLDER
    plan = storage.plan(StorageFault.ERROR, On.WRITE, "data/*", times=3)
    ...                                                          # the next three writes of packs fail
    await plan.wait(times=3)                                     # AssertionError if it never struck
    plan.end()

``folder/plans.json`` holds the plans, ``folder/struck`` a line for each time that one struck. Both are there for every
process that was started with that folder, so that a fault planned three times strikes three times in all, however
often the target is started again and however many replicas it has.

The wrapper stands behind the target's policy: the hash of what is written was taken before, and what is read is hashed
by nobody there. A bit flipped here is one that the disk flipped.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import random
import secrets
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any, ClassVar

LOOK_SECONDS = 0.05
WAIT_SECONDS = 60.0
HANG_SECONDS = 3600.0


class StorageFault(StrEnum):
    """What befalls an operation."""

    ERROR = "error"
    """``EIO``, as of a disk or a mount that went away."""
    BUSY = "busy"
    """What an S3 server's 503 becomes."""
    HANG = "hang"
    """No answer for ``seconds``, or until the plan is ended; then it is done."""
    SLOW = "slow"
    """It is done ``seconds`` later."""
    SHORT_READ = "short read"
    """Half of the bytes that were asked for."""
    FLIP_READ = "flip at read"
    """One bit of what was read; the file is as it was."""
    FLIP_WRITE = "flip at write"
    """One bit of what is written; it stays."""
    NO_SPACE = "no space"
    READ_ONLY = "read-only"


class On(StrEnum):
    """The operations that a plan may name."""

    READ = "read"
    WRITE = "write"
    LIST = "list"
    REMOVE = "remove"
    ANY = "any"


_NATURAL = {
    StorageFault.SHORT_READ: On.READ,
    StorageFault.FLIP_READ: On.READ,
    StorageFault.FLIP_WRITE: On.WRITE,
}
"""Where alone a fault can be."""


@dataclass(frozen=True)
class Spec:
    """A plan as it stands in the file. ``path`` is a shell pattern, relative to the root; ``times`` 0: for ever."""

    name: str
    fault: StorageFault
    on: On
    path: str
    times: int
    seconds: float

    def fits(self, on: On, path: str) -> bool:
        return self.on in (On.ANY, on) and fnmatchcase(path, self.path)


# ---- the test's end --------------------------------------------------------------------------------------------------


class FaultyStorage:
    """Makes plans. ``program`` stands in for ``snappy`` in the process of a target service."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "struck").touch()
        self._specs: dict[str, Spec] = {}
        self._save()

    @property
    def program(self) -> list[str]:
        return [sys.executable, "-m", "tests.support.storage_faults", str(self.folder)]

    @property
    def counts(self) -> Counter[StorageFault]:
        """How often each kind of fault has struck."""
        return Counter(StorageFault(fault) for _, fault, *_ in self.strikes())

    def plan(
        self, fault: StorageFault, on: On = On.ANY, path: str = "*", times: int = 1, seconds: float = HANG_SECONDS
    ) -> Plan:
        """Strike the next ``times`` operations (0: all) of that kind whose path, relative to the root, fits the shell
        pattern ``path``. ``seconds`` is of a hang or of slowness. An operation is struck by one plan alone."""
        spec = Spec(secrets.token_hex(4), fault, _NATURAL.get(fault, on), path, times, seconds)
        self._specs[spec.name] = spec
        self._save()
        return Plan(self, spec)

    def end(self, name: str) -> None:
        self._specs.pop(name, None)
        self._save()

    def end_all(self) -> None:
        self._specs.clear()
        self._save()

    def strikes(self) -> list[list[str]]:
        """Of each strike so far: the plan's name, the fault, the operation, the path."""
        return [line.split("\t") for line in (self.folder / "struck").read_text().splitlines()]

    def _save(self) -> None:
        draft = self.folder / "plans.json.new"
        draft.write_text(json.dumps([asdict(spec) for spec in self._specs.values()]))
        draft.replace(self.folder / "plans.json")


class Plan:
    """One planned fault; made by :meth:`FaultyStorage.plan`."""

    def __init__(self, storage: FaultyStorage, spec: Spec) -> None:
        self._storage, self.spec = storage, spec

    @property
    def struck(self) -> int:
        """How often it has struck so far."""
        return len(self.paths)

    @property
    def paths(self) -> list[str]:
        """Of the files that were struck, relative to the root."""
        return [path for name, _, _, path in self._storage.strikes() if name == self.spec.name]

    def end(self) -> None:
        """Strike no more; who hangs goes on."""
        self._storage.end(self.spec.name)

    async def wait(self, times: int | None = None, seconds: float = WAIT_SECONDS) -> None:
        """Until it has struck so often (by default as often as planned). Raises AssertionError if it does not."""
        deadline = monotonic() + seconds
        while self.struck < self._wanted(times) and monotonic() < deadline:
            await asyncio.sleep(LOOK_SECONDS)
        self.expect(times)

    def expect(self, times: int | None = None) -> None:
        """As :meth:`wait`, at once."""
        struck, wanted = self.struck, self._wanted(times)
        assert struck >= wanted, f"{self.spec.fault} on {self.spec.path} struck {struck} times, not {wanted}"

    def _wanted(self, times: int | None) -> int:
        return max(1, self.spec.times) if times is None else times


# ---- the target's end ------------------------------------------------------------------------------------------------


class Busy(OSError):
    """As s3fs hands on what botocore raises: the server's answer hangs on ``response``."""

    response: ClassVar[dict[str, Any]] = {"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}


class Fate:
    """Knows the plans, and lets them strike. Any thread may call any method."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._never = Event()

    def meet(self, on: On, path: str, *, but: frozenset[StorageFault] = frozenset()) -> StorageFault | None:
        """The fault that strikes this operation, none of ``but``. What raises or takes time has been done then."""
        spec = next((spec for spec in self._specs() if self._strikes(spec, on, path, but)), None)
        if spec is None:
            return None
        if spec.fault in (StorageFault.HANG, StorageFault.SLOW):
            self._wait(spec)
        elif error := _ERRORS.get(spec.fault):
            raise error(path)
        return spec.fault

    def _specs(self) -> list[Spec]:
        found = json.loads((self._folder / "plans.json").read_text())
        return [Spec(**{**spec, "fault": StorageFault(spec["fault"]), "on": On(spec["on"])}) for spec in found]

    def _strikes(self, spec: Spec, on: On, path: str, but: frozenset[StorageFault]) -> bool:
        if spec.fault in but or not spec.fits(on, path):
            return False
        with (self._folder / "struck").open("r+") as struck:
            fcntl.flock(struck, fcntl.LOCK_EX)
            so_far = sum(line.startswith(spec.name) for line in struck)
            if spec.times and so_far >= spec.times:
                return False
            struck.write("\t".join((spec.name, spec.fault, on, path)) + "\n")
            return True

    def _wait(self, spec: Spec) -> None:
        deadline = monotonic() + spec.seconds
        while monotonic() < deadline and spec in self._specs():
            self._never.wait(min(LOOK_SECONDS, max(0.0, deadline - monotonic())))


_ERRORS: dict[StorageFault, Callable[[str], OSError]] = {
    StorageFault.ERROR: lambda path: OSError(errno.EIO, os.strerror(errno.EIO), path),
    StorageFault.BUSY: lambda path: Busy(errno.EBUSY, "Please reduce your request rate.", path),
    StorageFault.NO_SPACE: lambda path: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path),
    StorageFault.READ_ONLY: lambda path: OSError(errno.EROFS, os.strerror(errno.EROFS), path),
}

_PIECEMEAL = frozenset({StorageFault.SHORT_READ, StorageFault.FLIP_READ, StorageFault.FLIP_WRITE})
"""What befalls bytes, and not the opening of a file."""


class FaultyFileSystem:
    """``fs`` with faults, seen from ``root``. What is not named here is ``fs``'s own."""

    def __init__(self, fs: Any, root: str, fate: Fate) -> None:
        self._fs, self._root, self._fate = fs, fs._strip_protocol(root), fate

    def __getattr__(self, name: str) -> Any:
        """What has no part in the faults; and ``draft``, which some filesystems have and others have not."""
        found = getattr(self._fs, name)
        return self._draft(found) if name == "draft" else found

    def info(self, path: str, **more: Any) -> Any:
        self._meet(On.LIST, path)
        return self._fs.info(path, **more)

    def ls(self, path: str, **more: Any) -> Any:
        self._meet(On.LIST, path)
        return self._fs.ls(path, **more)

    def find(self, path: str, **more: Any) -> Any:
        self._meet(On.LIST, path)
        return self._fs.find(path, **more)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **more: Any) -> bytes:
        fault = self._meet(On.READ, path)
        return harmed(self._fs.cat_file(path, start=start, end=end, **more), fault)

    def open(self, path: str, mode: str = "rb", **more: Any) -> Any:
        on = On.READ if mode == "rb" else On.WRITE
        self._meet(on, path, but=_PIECEMEAL)
        return FaultyFile(self._fs.open(path, mode, **more), partial(self._meet, on, path))

    def pipe_file(self, path: str, value: bytes, **more: Any) -> None:
        fault = self._meet(On.WRITE, path)
        self._fs.pipe_file(path, harmed(value, fault), **more)

    def put_file(self, here: str, path: str, **more: Any) -> None:
        self._meet(On.WRITE, path, but=_PIECEMEAL)
        self._fs.put_file(here, path, **more)

    def rm_file(self, path: str) -> None:
        self._meet(On.REMOVE, path)
        self._fs.rm_file(path)

    def _draft(self, make: Callable[..., Any]) -> Callable[..., Any]:
        def draft(path: str, **more: Any) -> Any:
            self._meet(On.WRITE, path, but=_PIECEMEAL)
            return FaultyFile(make(path, **more), partial(self._meet, On.WRITE, path))

        return draft

    def _meet(self, on: On, path: str, but: frozenset[StorageFault] = frozenset()) -> StorageFault | None:
        return self._fate.meet(on, path.removeprefix(self._root).strip("/"), but=but)


class FaultyFile:
    """An open file, or a draft: it meets its fate at each read and write, and when it settles; the rest is its own."""

    def __init__(self, inner: Any, meet: Callable[..., StorageFault | None]) -> None:
        self._inner, self._meet = inner, meet

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def read(self, size: int = -1) -> bytes:
        fault = self._meet()
        return harmed(self._inner.read(size), fault)

    def write(self, data: bytes | memoryview) -> Any:
        fault = self._meet()
        return self._inner.write(harmed(bytes(data), fault) if fault else data)

    def settle(self) -> None:
        self._meet(but=_PIECEMEAL)
        self._inner.settle()


def harmed(content: bytes, fault: StorageFault | None) -> bytes:
    """``content`` after a fault that befalls bytes."""
    if fault is StorageFault.SHORT_READ:
        return content[: len(content) // 2]
    if fault in (StorageFault.FLIP_READ, StorageFault.FLIP_WRITE) and content:
        changed = bytearray(content)
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
        return bytes(changed)
    return content


def main() -> int:
    """``snappy`` with a target's storage wrapped; the first argument is the folder of the plans."""
    from snappy.cli.main import main as snappy
    from snappy.targets import opening, service

    fate = Fate(Path(sys.argv.pop(1)))
    opened = opening.open_target

    def open_target(*given: Any, **more: Any) -> Any:
        files = opened(*given, **more)
        files.fs = FaultyFileSystem(files.fs, files.root, fate)
        return files

    service.open_target = open_target  # type: ignore[attr-defined]
    return snappy()


if __name__ == "__main__":
    sys.exit(main())
