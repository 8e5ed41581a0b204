"""The audit log: a TinyDB that only ever grows.

TinyDB's own storage rewrites its file at each insert and its own table rebuilds a dict; both cost more the longer the
log is, and a crash can take the file. So the storage is :class:`SegmentStorage` and the table appends. ``Query`` and
``where`` work as ever.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NoReturn, cast

from tinydb import TinyDB
from tinydb.table import Document, Table

from snappy.errors import Corrupt
from snappy.jobs import extract
from snappy.jobs.audit_words import AuditExtract, AuditState
from snappy.jobs.segments import SEGMENT_BYTES, TABLE, Entries, SegmentStorage


class AuditTable(Table):
    """Inserts append; whatever would change or remove an entry raises PermissionError."""

    _storage: SegmentStorage

    def __init__(self, storage: SegmentStorage, name: str) -> None:
        super().__init__(storage, name, cache_size=0)  # a cached result of a growing log is a wrong one

    def insert(self, document: Mapping[str, Any]) -> int:
        return self.insert_multiple([document])[0]

    def insert_multiple(self, documents: Iterable[Mapping[str, Any]]) -> list[int]:
        """All with one sync; the entries' numbers, once they are on the disk."""
        return self._storage.append(list(documents))

    def _update_table(self, updater: Callable[..., Any]) -> NoReturn:
        raise PermissionError("an audit log is only appended to")


class AuditDB(TinyDB):
    table_class = AuditTable  # type: ignore[assignment]
    default_table_name = TABLE
    default_storage_class = SegmentStorage  # type: ignore[assignment]


class AuditLog:
    """What the audit service does with the database.

    ``folder`` is made if it is not there. With ``writable`` off, any number of processes may read while one writes.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, writable: bool = True, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self.db = AuditDB(folder, writable=writable, segment_bytes=segment_bytes)
        self._storage = cast(SegmentStorage, self.db.storage)

    def __len__(self) -> int:
        return len(self._entries())

    @property
    def head(self) -> str:
        """The newest entry's hash."""
        return self._storage.position.head

    def append(self, documents: Iterable[Mapping[str, Any]]) -> list[int]:
        """The entries' numbers, once they are on the disk. Raises NoSpace, Unavailable."""
        numbers: list[int] = self.db.insert_multiple(documents)
        return numbers

    def newest(
        self, limit: int, matches: Callable[[Mapping[str, Any]], bool] = lambda _: True, *, containing: str = ""
    ) -> list[Document]:
        """At most ``limit`` entries that match, the newest first. ``containing`` narrows the search before an entry
        is decoded: a text that each match holds."""
        found = self._entries().newest_first(containing.encode())
        return list(islice((Document(entry, number) for number, entry in found if matches(entry)), limit))

    def oldest_first(self) -> Iterator[Mapping[str, Any]]:
        """All of it."""
        return (entry for _, entry in self._entries().items())

    def export(self, first: int, matches: Callable[[Mapping[str, Any]], bool], *, room: int) -> AuditExtract:
        """Entries that match, from the number ``first`` on, with their proof: see :mod:`snappy.jobs.extract`.
        ``room`` is in bytes."""
        return extract.part(self._storage, first, matches, room=room)

    def verify(self) -> AuditState:
        """Check every hash; a fault is told, not raised."""
        storage, fault = self._storage, ""
        try:
            position = storage.verify()
        except Corrupt as error:
            position, fault = storage.position, error.message
        entries = position.following - 1
        return AuditState(entries=entries, segments=len(storage.segments), head=position.head, fault=fault)

    def close(self) -> None:
        self.db.close()

    def _entries(self) -> Entries:
        entries: Entries = self._storage.read()[TABLE]
        return entries
