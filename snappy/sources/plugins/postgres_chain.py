"""A chain of physical backups of one server: a full one, and what changed from each to the next.

Every snapshot holds the whole chain, so each can be restored whatever became of the others. What is in it already is
known by size and time, and the archiver takes it from the parent snapshot. The manifest of the last backup, which the
server needs to tell what changed since, is kept at the source service.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from snappy.decoding import from_msgpack
from snappy.errors import SourceError
from snappy.sources.plugins.postgres_server import explained
from snappy.sources.programs import Output, Program

BLOCK = 512
MANIFEST = b"backup_manifest"
NAMES = ("{:03}-full.tar", "{:03}-incremental.tar")


class Member(msgspec.Struct, frozen=True):
    """One backup of a chain, as its snapshot has it: bytes, and nanoseconds since the epoch."""

    name: str
    size: int
    time_ns: int


class Chain(msgspec.Struct, frozen=True):
    """What is kept of it; ``system`` is the server's identifier, which another one does not have."""

    system: int
    members: tuple[Member, ...] = ()
    manifest: bytes = b""

    def next_name(self) -> str:
        return NAMES[bool(self.members)].format(len(self.members))


class KeptChain:
    """The file that it is kept in."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, system: int, most: int) -> Chain:
        """The one that may be continued: that of this server, while it has no more than ``most`` members. Else an
        empty one."""
        try:
            found = from_msgpack(self._path.read_bytes(), Chain)
        except (OSError, msgspec.DecodeError):
            return Chain(system)
        return found if found.system == system and 0 < len(found.members) <= most else Chain(system)

    def save(self, chain: Chain) -> None:
        """Durably, or not at all."""
        beside = self._path.with_suffix(".new")
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(handle, "wb") as file:
            file.write(msgspec.msgpack.encode(chain))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)

    def forget(self) -> None:
        """The next backup is full."""
        self._path.unlink(missing_ok=True)

    def lost(self, member: Member) -> SourceError:
        """The error for one that the parent snapshot was to have."""
        self.forget()
        return _ChainLost(
            f"{member.name} of the chain is not in the parent snapshot",
            hint="the next backup is a full one; name another `chain` for each target",
        )


class _ChainLost(SourceError, code="source", retryable=True):
    """A chain cannot go on."""


class BackupOutput(Output):
    """What pg_basebackup writes, a tar archive: counted, and with the manifest that is in it set aside."""

    def __init__(self, program: Program) -> None:
        super().__init__(program, explained)
        self.size = 0
        self.is_whole = False
        self._archive = ManifestFinder()

    @property
    def manifest(self) -> bytes:
        return bytes(self._archive.manifest)

    def readinto(self, buffer: Any) -> int:
        size = super().readinto(buffer)
        self.size += size
        self.is_whole = not size
        self._archive.feed(memoryview(buffer)[:size])
        return size


class ManifestFinder:
    """Goes through a tar archive as it comes (POSIX.1-1988, ustar)."""

    def __init__(self) -> None:
        self.manifest = bytearray()
        self._header = bytearray()
        self._content = self._padding = 0
        """Bytes of the present member, and of what fills its last block, that are to come."""
        self._is_wanted = False

    def feed(self, data: memoryview) -> None:
        while data:
            if self._content:
                taken = data[: self._content]
                self._content -= len(taken)
                if self._is_wanted:
                    self.manifest += taken
            elif self._padding:
                taken = data[: self._padding]
                self._padding -= len(taken)
            else:
                taken = data[: BLOCK - len(self._header)]
                self._header += taken
                if len(self._header) == BLOCK:
                    self._begin(bytes(self._header))
                    self._header.clear()
            data = data[len(taken) :]

    def _begin(self, header: bytes) -> None:
        """An archive ends with blocks of zeros, which stand for members of no size."""
        self._content = _number(header[124:136])
        self._padding = -self._content % BLOCK
        self._is_wanted = header[:100].rstrip(b"\0") == MANIFEST


def _number(field: bytes) -> int:
    """Octal digits, or where they do not suffice a binary number whose first bit is set."""
    if field[0] & 0x80:
        return int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
    return int(field.rstrip(b"\0 ") or b"0", 8)
