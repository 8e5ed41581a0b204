"""What plug-ins for database servers share: what is held while a server is backed up, how rules and files name
databases, which of them are meant, and what they are called while they are restored.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from itertools import count
from typing import Annotated, Generic, TypeVar
from urllib.parse import quote

from msgspec import Meta

from snappy import log
from snappy.errors import BadOptions, SnappyError, SourceError, SourceMissing
from snappy.repository.format import MIB
from snappy.sources.programs import Running

OURS = re.compile(r"snappy_(?:restore|replaced)_.*_[0-9a-f]{8}_[0-9a-f]{8}_\d+")

MOST_WHOLE = 64 * MIB

Named = Annotated[str, Meta(description="which server, by its name in the source service's configuration")]
"""An option."""
Renamed = Annotated[
    dict[str, str], Meta(description='which, and under what names: {"old": "new"}; none: all, under their own')
]
"""An option of restores."""

Frozen = TypeVar("Frozen")

_log = log.get(__name__)


class ServerSource(ABC, Generic[Frozen]):
    """A source that runs programs, and may hold something at a server, while it is backed up."""

    def __init__(self) -> None:
        self._running = Running()

    @abstractmethod
    def _freeze(self, held: ExitStack) -> Frozen:
        """What ``held`` is given is undone when the backup is over, or when this raises. It may block."""

    @asynccontextmanager
    async def snap(self) -> AsyncIterator[Frozen]:
        """Raises :class:`SourceMissing`, :class:`snappy.errors.SourceDenied` and
        :class:`snappy.errors.SourceUnavailable`."""
        held = ExitStack()
        try:
            yield await asyncio.to_thread(self._freeze, held)
        finally:
            self._running.end()
            await asyncio.to_thread(held.close)

    def interrupt(self) -> None:
        """End the programs."""
        self._running.end()


class Choice:
    """What of a server is backed up: the databases that are ``named``, or else all, but for those ``left_out``; and
    what is the ``whole`` server's, where that is asked for, or else with all databases."""

    def __init__(self, named: Sequence[str], left_out: Collection[str], *, whole: bool | None) -> None:
        self._named, self._left_out = named, left_out
        self.whole = not named if whole is None else whole
        if not set(named).isdisjoint(left_out):
            raise BadOptions("a database is both among `databases` and in `exclude`")

    def claims(self, plugin: str, server: str) -> list[str]:
        return claims(plugin, server, self._named, whole=self.whole)

    def of(self, server: str, known: Collection[str]) -> list[str]:
        """Those that are meant of the server's. Raises :class:`SourceMissing`."""
        wanted = self._named or [name for name in known if not is_unfinished(name)]
        for name in wanted:
            if name not in known:
                raise SourceMissing(
                    f"the server {server} has no database {name!r}", hint=f"it has: {', '.join(known) or 'none'}"
                )
        return [name for name in wanted if name not in self._left_out]


def claims(plugin: str, server: str, databases: Iterable[str], *, whole: bool) -> list[str]:
    """How rules name these databases, or else the server; and the server too where the ``whole`` of it is meant."""
    names = [*databases, *([""] if whole else [])]
    return sorted({claim(plugin, server, name) for name in names or ("",)})


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


class Renames:
    """Which databases of a snapshot are restored, and what they are called then; none: all, under their own names.
    What the server has of its ``own`` is not replaced."""

    def __init__(self, names: Mapping[str, str], own: Callable[[str], bool]) -> None:
        self._names, self._own = names, own
        self.wanted = sorted({self.new_name(old) or old for old in names})
        if len(self.wanted) < len(names):
            raise BadOptions("two databases cannot be restored under one name")

    def new_name(self, old: str) -> str | None:
        """None: it is not restored. Raises :class:`BadOptions`."""
        new = self._names.get(old) if self._names else old
        if new is not None and self._own(new):
            raise BadOptions(f"{new} is the server's own and not restored", hint="restore it under another name")
        return new

    def check_found(self, found: Iterable[str]) -> None:
        """Raise :class:`SourceMissing` where one is not among them."""
        if lost := sorted(set(self._names).difference(found)):
            raise SourceMissing(f"the snapshot has no dump of {', '.join(lost)}", hint="`snappy ls` shows what it has")


class DatabasesSink(ABC):
    """The part of a :class:`snappy.repository.entries.StreamSink` that is the same for all servers: nothing that
    stands there is replaced unasked, and what is not finished goes away. ``_held`` is what it holds."""

    def __init__(self, service: str, server: str, renames: Renames, *, overwrite: bool) -> None:
        self._server_name, self._renames, self._overwrite = server, renames, overwrite
        self._running = Running()
        self._names = Names(service)
        self._held = ExitStack()

    @abstractmethod
    def _is_free(self, database: str) -> bool:
        """Whether there is nothing in it, or no such database."""

    @abstractmethod
    def _give_up(self) -> None:
        """Remove what is not finished, if there is anything."""

    def _check_free(self, databases: Iterable[str]) -> None:
        """Raise :class:`BadOptions` when the restore would replace what it may not."""
        for name in databases:
            if not self._overwrite and not self._is_free(name):
                raise BadOptions(
                    f"the server {self._server_name} has a database {name!r}, and there is something in it",
                    hint='restore it under another name, databases: {"old": "new"}, or with overwrite',
                )

    def interrupt(self) -> None:
        """End the programs."""
        self._running.end()

    def close(self) -> None:
        self._running.end()
        with self._held:
            try:
                self._give_up()
            except SnappyError as error:
                _log.warning("unfinished databases stay until the next restore", reason=error.message)
