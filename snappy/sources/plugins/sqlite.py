"""The ``sqlite`` plug-in: databases in use, copied by SQLite's own backup interface and then backed up as files.

Databases in WAL mode are all copied as they were when the backup froze them; one with a rollback journal as it was
when it was copied, whole in itself. Nobody who writes waits for the repository: the copies are made first, into the
service's work folder.
"""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from snappy.errors import BadOptions, SourceError, SourceMissing
from snappy.repository.entries import Entry, Node, StreamSink
from snappy.sources.local_node import local_entry
from snappy.sources.places import Local, claimed_place, parse_place
from snappy.sources.plugins import sqlite_copy
from snappy.sources.plugins.sqlite_copy import Check, Database
from snappy.sources.plugins.sqlite_find import Pattern
from snappy.sources.plugins.sqlite_sink import SqliteSink
from snappy.sources.site import Site

PLUGIN = "sqlite"


class SqliteOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which databases."""

    paths: Annotated[
        tuple[str, ...],
        Meta(min_length=1, description="absolute paths of database files; * ? [] match names, ** folders at any depth"),
    ]
    check: Annotated[
        Check, Meta(description="how SQLite checks the copies: quick leaves out whether indexes fit their tables")
    ] = "quick"


class SqliteRestore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where databases are restored, below which folder. None is put in place before all are there."""

    to: Annotated[str, Meta(description="an absolute folder; with / each comes back to where it was")]
    overwrite: Annotated[bool, Meta(description="replace databases that stand there, which nobody may be using")] = (
        False
    )
    check: Annotated[Check, Meta(description="how SQLite checks them before they are put in place")] = "quick"


class Frozen(msgspec.Struct):
    """Databases that are open, where copies of them go, and what could not be opened."""

    databases: list[Database]
    folder: Path
    refused: dict[bytes, str]


class SqliteSource:
    """SQLite databases in use, each consistent."""

    name: ClassVar[str] = PLUGIN
    Options: ClassVar[type[msgspec.Struct]] = SqliteOptions
    RestoreOptions: ClassVar[type[msgspec.Struct]] = SqliteRestore

    def __init__(self, options: SqliteOptions, site: Site) -> None:
        self._site, self._check = site, options.check
        self._patterns = [Pattern(path) for path in options.paths]
        self._over = threading.Event()

    def claims(self) -> list[str]:
        """The files, and of patterns the folder that all matches lie in."""
        return sorted({pattern.claim for pattern in self._patterns})

    def snap(self) -> AbstractAsyncContextManager[Frozen]:
        """Open all; those in WAL mode stay as they are now. Raises :class:`SourceMissing`."""
        return self._snap()

    @asynccontextmanager
    async def _snap(self) -> AsyncIterator[Frozen]:
        held = ExitStack()
        try:
            yield await asyncio.to_thread(self._freeze, held)
        finally:
            await asyncio.to_thread(held.close)

    def _freeze(self, held: ExitStack) -> Frozen:
        paths: dict[bytes, str] = {}
        for pattern in self._patterns:
            paths |= pattern.found()
        if not paths:
            raise SourceMissing(f"there is no SQLite database at {', '.join(self.claims())}")
        folder = held.enter_context(self._site.work_folder(PLUGIN))
        databases = [Database(path) for path, refusal in paths.items() if not refusal]
        for database in databases:
            held.callback(database.close)
            paths[database.path] = self._opened(database)
        usable = [database for database in databases if not paths[database.path]]
        for database in usable:
            database.pin()
        return Frozen(usable, folder, {path: refusal for path, refusal in paths.items() if refusal})

    def _opened(self, database: Database) -> str:
        """An empty string; or of one that a pattern met, and that was not named, why it cannot be read."""
        try:
            database.open()
        except SourceError as error:
            if os.fsdecode(database.path) in self.claims():
                raise
            return error.message
        return ""

    def export(self, frozen: Frozen) -> Iterator[Entry]:
        """The copies, under the names of the databases. All are made before the first is yielded."""
        entries = {path: _refused(path, why) for path, why in frozen.refused.items()}
        for number, database in enumerate(frozen.databases):
            copy = os.fsencode(frozen.folder / f"{number}.db")
            database.copy(copy, self._over)
            entries[database.path] = entry = _entry(database.path, copy)
            entry.warning = sqlite_copy.fault(copy, self._check) or entry.warning
        yield from _in_order(entries)

    def interrupt(self) -> None:
        """Copy no more."""
        self._over.set()

    @classmethod
    def restore_claims(cls, options: SqliteRestore, site: Site) -> list[str]:
        """The folder, symlinks resolved."""
        place = parse_place(options.to)
        if not isinstance(place, Local):
            raise BadOptions("databases are restored to a local folder", hint="restore a URL by the plug-in files")
        return [os.path.realpath(place.claim)]

    @classmethod
    def import_(cls, options: SqliteRestore, claims: Sequence[str], site: Site) -> StreamSink:
        """Open the folder, making it. Raises :class:`snappy.errors.UnsafePath` for a symlink on the way."""
        place = claimed_place(claims[0])
        assert isinstance(place, Local)
        return SqliteSink(place.path, overwrite=options.overwrite, check=options.check)


def _entry(path: bytes, copy: bytes) -> Entry:
    """The copy's content with the owner and the mode of what was copied. It is never taken for unchanged."""
    found = os.stat(path)
    with suppress(PermissionError):
        os.chown(copy, found.st_uid, found.st_gid)
    os.chmod(copy, stat.S_IMODE(found.st_mode))
    entry = local_entry(copy, copy, os.stat(copy))
    entry.path, entry.node.name = path, os.path.basename(path)
    return entry


def _refused(path: bytes, why: str) -> Entry:
    return Entry(path=path, node=Node(name=os.path.basename(path), type="irregular"), error=why)


def _in_order(entries: dict[bytes, Entry]) -> Iterator[Entry]:
    """With the folders above them, each once."""
    known: set[bytes] = set()
    for path in sorted(entries, key=lambda path: path.split(b"/")):
        above = path
        missing = []
        while (above := os.path.dirname(above)) != b"/" and above not in known:
            missing.append(above)
            known.add(above)
        for folder in reversed(missing):
            yield local_entry(folder, folder, os.stat(folder))
        yield entries[path]
