"""Databases of a server: how rules and files name them, and what they are called while they are restored."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterator
from itertools import count
from urllib.parse import quote

from snappy.errors import BadOptions, SourceError
from snappy.repository.format import MIB

OURS = re.compile(r"snappy_(?:restore|replaced)_.*_[0-9a-f]{8}_[0-9a-f]{8}_\d+")

MOST_WHOLE = 64 * MIB


def claim(plugin: str, server: str, database: str = "") -> str:
    """How rules name a server, or one of its databases. Raises :class:`BadOptions` for what looks like a folder."""
    if database in (".", ".."):
        raise BadOptions(f"a database named {database!r} cannot be told from a folder")
    return f"{plugin}://{server}" + (f"/{file_name(database)}" if database else "")


def file_name(database: str) -> str:
    """The database's name where it is to be a part of a path."""
    return "%2E" * len(database) if database in (".", "..") else quote(database, safe=" @+,=#$")


def is_unfinished(database: str) -> bool:
    """Whether a restore made it, of whatever service, and has not yet given it its name."""
    return bool(OURS.fullmatch(database))


def whole(content: Iterator[bytes]) -> bytes:
    """A file that describes databases, which is small. Raises :class:`SourceError` where it is not."""
    found = bytearray()
    for piece in content:
        found += piece
        if len(found) > MOST_WHOLE:
            raise SourceError(f"a file that describes databases is larger than {MOST_WHOLE // MIB} MiB")
    return bytes(found)


class Names:
    """The names of the databases that one restore makes, and of what it puts aside. A session of the restore is called
    like it as long as it lives."""

    def __init__(self, service: str) -> None:
        whose = f"{service[:20]}_{hashlib.sha256(service.encode()).hexdigest()[:8]}"
        self._ours = re.compile(rf"snappy_(?:restore|replaced)_({re.escape(whose)}_[0-9a-f]{{8}})_\d+")
        self._run = f"{whose}_{secrets.token_hex(4)}"
        self._numbers = count(1)

    @property
    def session(self) -> str:
        return f"snappy_restore_{self._run}"

    def unfinished(self) -> str:
        """A new one."""
        return f"{self.session}_{next(self._numbers)}"

    def replaced(self) -> str:
        """A new one."""
        return f"snappy_replaced_{self._run}_{next(self._numbers)}"

    def session_of(self, database: str) -> str:
        """What the restore is called that made it, if one of this service did; else nothing."""
        found = self._ours.fullmatch(database)
        return f"snappy_restore_{found[1]}" if found else ""
