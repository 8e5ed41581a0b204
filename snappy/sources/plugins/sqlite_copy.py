"""Copies a SQLite database that others write to."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Literal
from urllib.parse import quote

from snappy.errors import NoSpace, SourceError, SourceUnavailable

Check = Literal["none", "quick", "full"]
PRAGMAS = {"quick": "quick_check", "full": "integrity_check"}
STEP_PAGES = 2000
"""Copied at a time; between two steps others may write."""
RETRY_SECONDS = 0.001
"""Who writes without a pause lets go of the lock for less than a millisecond at a time: SQLite's own waiting, which
grows to a tenth of a second, would hardly ever meet that."""
MOST_RESTARTS = 3
"""Writers undo what was copied so often; then they have to wait for the copy."""
PATIENCE = 60.0
"""Seconds that a database may be locked."""
ROOM_HINT = "free space in the folder that `work` names at the source service"


class Database:
    """A database at ``path``, to be opened, pinned, copied, closed."""

    def __init__(self, path: bytes) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._is_pinned = False

    def open(self) -> None:
        """For reading; where that takes recovering from a crash of its user first, for writing. Raises
        :class:`SourceUnavailable` when it stays locked, SourceError when it cannot be read."""
        try:
            self._connect("mode=ro")
        except SourceUnavailable:
            raise
        except SourceError:
            self.close()
            self._connect("mode=rw")

    def pin(self) -> None:
        """In WAL mode nobody waits for who reads, so it stays as it is now until it was copied."""
        with _explained(self.path):
            if self._asked("PRAGMA journal_mode") == "wal":
                self._hold()

    def copy(self, to: bytes, over: threading.Event) -> None:
        """Raises :class:`NoSpace`, :class:`SourceUnavailable` when it stays locked, SourceError when it is ``over``."""
        with _explained(self.path), closing(sqlite3.connect(to, isolation_level=None)) as copy:
            copy.execute("PRAGMA synchronous = OFF")
            watch = _Watch(self.path, over, patient=self._is_pinned)
            try:
                self._opened.backup(copy, pages=STEP_PAGES, progress=watch, sleep=RETRY_SECONDS)
            except _Outrun:
                self._hold()
                last = _Watch(self.path, over, patient=True)
                self._opened.backup(copy, pages=STEP_PAGES, progress=last, sleep=RETRY_SECONDS)
        self.close()

    def close(self) -> None:
        """What was pinned is free again; may be called twice."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def _connect(self, how: str) -> None:
        with _explained(self.path):
            self._connection = connect(self.path, how)
            self._first_page()

    @property
    def _opened(self) -> sqlite3.Connection:
        assert self._connection
        return self._connection

    def _hold(self) -> None:
        self._opened.execute("BEGIN")
        self._first_page()
        self._is_pinned = True

    def _first_page(self) -> None:
        """Takes the lock of who reads, until the transaction ends."""
        self._asked("SELECT count(*) FROM sqlite_master")

    def _asked(self, question: str) -> object:
        """The one answer, however often it is locked for a moment."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                (answer,) = self._opened.execute(question).fetchone()
                return answer
            except sqlite3.OperationalError as error:
                if not _is_locked(error) or time.monotonic() > deadline:
                    raise
            time.sleep(RETRY_SECONDS)


def connect(path: bytes, how: str) -> sqlite3.Connection:
    """``how`` is in the words of SQLite's URIs."""
    url = f"file:{quote(path)}?{how}"
    return sqlite3.connect(url, uri=True, isolation_level=None, check_same_thread=False, timeout=0)


def fault(path: bytes, check: Check) -> str:
    """What is wrong with a database that nobody uses, or an empty string."""
    if check == "none":
        return ""
    try:
        with closing(connect(path, "mode=ro&immutable=1")) as connection:
            (said,) = connection.execute(f"PRAGMA {PRAGMAS[check]}(1)").fetchone()
    except sqlite3.DatabaseError as error:
        said = str(error)
    return "" if said == "ok" else f"SQLite's check of it says: {said}"


class _Outrun(Exception):
    """Others write faster than it is copied."""


class _Watch:
    """Hears of each step of a copy."""

    def __init__(self, path: bytes, over: threading.Event, *, patient: bool) -> None:
        self._path, self._over, self._patient = path, over, patient
        self._remaining, self._restarts, self._moved = -1, 0, time.monotonic()

    def __call__(self, status: int, remaining: int, total: int) -> None:
        if self._over.is_set():
            raise SourceError("copying was interrupted")
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            if time.monotonic() - self._moved > PATIENCE:
                raise SourceUnavailable(
                    f"{os.fsdecode(self._path)} was locked for {PATIENCE:g} seconds", hint="look who holds the lock"
                )
            return
        self._moved = time.monotonic()
        if remaining >= self._remaining >= 0:
            self._restarts += 1  # a step that brought it no nearer to its end began it anew
        self._remaining = remaining
        if self._restarts >= MOST_RESTARTS and not self._patient:
            raise _Outrun


@contextmanager
def _explained(path: bytes) -> Iterator[None]:
    """What SQLite says, as one of our errors."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if _code(error) == sqlite3.SQLITE_FULL:
            raise NoSpace(f"there is no room for a copy of {os.fsdecode(path)}", hint=ROOM_HINT) from error
        kind = SourceUnavailable if _is_locked(error) else SourceError
        raise kind(
            f"{os.fsdecode(path)} cannot be read: {error}", hint="see what `PRAGMA integrity_check` says of it"
        ) from error


def _code(error: sqlite3.Error) -> int:
    """Without what SQLite adds to it above the first byte."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _is_locked(error: sqlite3.Error) -> bool:
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
