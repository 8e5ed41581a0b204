"""What index files say, kept on the local disk as tables that are ready for use.

A file holds one table (see :func:`snappy.repository.index_table.write`) and the names of the index files that it stands
for, and at its end a stamp that only a holder of the repository's key can make. A table is used as long as each of its
index files is still in the repository; a file is never changed, only superseded. Blob ids are hashes of plain data, so
that the files are for their owner alone.

The tables' sizes are kept apart by a factor: there are few to look into, and a large one is seldom written.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable
from hmac import compare_digest
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from snappy import log
from snappy.decoding import from_json
from snappy.repository.format import HEX_ID
from snappy.repository.index_table import FixedTable, GatheredTable, Rows, Shape, write

KEPT_UNUSED = 90 * 86400
"""Seconds for which the tables of a repository stay that no job opens."""

_FACTOR = 16
_SMALL = 1 << 16
"""Rows; smaller tables are always joined."""

_PURPOSE = b"snappy: cached index, format 1, " + sys.byteorder.encode()
_STAMP_SIZE = 32
_LENGTH_SIZE = 4
_READ_AT_ONCE = 1 << 20
_UNFINISHED = ".unfinished-"
_UNFINISHED_AGE = 3600

_LOG = log.get(__name__)

Stamp = Callable[[bytes, bytes], bytes]
"""See :meth:`snappy.repository.crypto.SealingKey.stamp`."""


class Cached(NamedTuple):
    """A table in a file, and the index files that it stands for."""

    path: Path
    files: frozenset[str]
    table: FixedTable


class _Contents(msgspec.Struct):
    repository: str
    files: list[str]
    shape: Shape


class _UselessError(Exception):
    """The file is damaged, or another's."""


class IndexCache:
    """The tables of one repository, in a folder of that name below ``folder``, which many may use at once.

    It only saves time: what goes wrong with it is logged, and never raised.
    """

    def __init__(self, folder: Path, repository: str, stamp: Stamp) -> None:
        self._folder = folder / repository
        self._repository = repository
        self._stamp = stamp

    def open(self, listed: Collection[str]) -> list[Cached]:
        """The tables whose index files are all among ``listed``, none of them in two; other tables are removed."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._tidy(time.time())
            paths = [path for path in self._folder.iterdir() if HEX_ID.match(path.name)]
            usable, rest = _chosen([one for one in map(self._read, paths) if one], frozenset(listed))
            _remove(one.path for one in rest)
        except OSError as error:
            _LOG.warning("the cache of indexes cannot be used", folder=str(self._folder), reason=str(error))
            return []
        return usable

    def extend(self, cached: list[Cached], files: Collection[str], table: GatheredTable) -> list[FixedTable]:
        """Keep ``table``, which says what is in ``files``, joined with those of ``cached`` that are not much larger.
        The tables that say all of it."""
        joined = _joined(cached, len(table))
        try:
            made = self._write(files, table, joined)
            _remove(one.path for one in joined)
        except OSError as error:
            _LOG.warning("an index could not be cached", folder=str(self._folder), reason=str(error))
            return [*(one.table for one in cached), table.settled()]
        return [*(one.table for one in cached if one not in joined), made]

    def _read(self, path: Path) -> Cached | None:
        try:
            with path.open("rb") as file:
                return self._checked(path, file)
        except FileNotFoundError:
            return None  # another has just superseded it
        except _UselessError as error:
            _LOG.warning("a cached index is thrown away", file=str(path), reason=str(error))
            _remove([path])
            return None

    def _checked(self, path: Path, file: BinaryIO) -> Cached:
        """Nothing in the file is believed before its stamp is right."""
        size = os.fstat(file.fileno()).st_size - _STAMP_SIZE
        if size <= 0:
            raise _UselessError("it is too short")
        if not compare_digest(self._stamp(_PURPOSE, _digest(file, size)), file.read(_STAMP_SIZE)):
            raise _UselessError("it is damaged, or another's")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        end = size - _LENGTH_SIZE
        length = int.from_bytes(mapped[end:size], "big")
        contents = from_json(mapped[end - length : end], _Contents)
        if contents.repository != self._repository:
            raise _UselessError("it is of another repository")
        return Cached(path, frozenset(contents.files), FixedTable(mapped, contents.shape))

    def _write(self, files: Collection[str], table: Rows, joined: list[Cached]) -> FixedTable:
        """No ``fsync``: what a crash leaves of a file has no valid stamp."""
        names = sorted(set(files).union(*(one.files for one in joined)))
        handle, name = tempfile.mkstemp(prefix=_UNFINISHED, dir=self._folder)
        try:
            with os.fdopen(handle, "w+b") as file:
                stamp, shape = self._put(file, names, [table, *(one.table for one in joined)])
                made = FixedTable(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), shape)
            os.replace(name, self._folder / stamp.hex())
        except BaseException:
            _remove([Path(name)])
            raise
        return made

    def _put(self, file: BinaryIO, names: list[str], tables: list[Rows]) -> tuple[bytes, Shape]:
        digest = hashlib.sha256()

        def out(piece: bytes) -> None:
            digest.update(piece)
            file.write(piece)

        shape = write(tables, out)
        contents = msgspec.json.encode(_Contents(self._repository, names, shape))
        out(contents + len(contents).to_bytes(_LENGTH_SIZE, "big"))
        stamp = self._stamp(_PURPOSE, digest.digest())
        file.write(stamp)
        file.flush()
        return stamp, shape

    def _tidy(self, now: float) -> None:
        """Remove what a crash left, and what was kept of repositories that nobody opens any more."""
        os.utime(self._folder, (now, now))
        left = [path for path in self._folder.glob(f"{_UNFINISHED}*") if _age(path, now) > _UNFINISHED_AGE]
        _remove(left)
        for folder in self._folder.parent.iterdir():
            if HEX_ID.match(folder.name) and _age(folder, now) > KEPT_UNUSED:
                shutil.rmtree(folder, ignore_errors=True)


def _chosen(cached: list[Cached], listed: frozenset[str]) -> tuple[list[Cached], list[Cached]]:
    """Those to use, the largest first, and the rest."""
    usable: list[Cached] = []
    rest: list[Cached] = []
    used: set[str] = set()
    for one in sorted(cached, key=lambda one: len(one.table), reverse=True):
        fits = one.files <= listed and used.isdisjoint(one.files)
        (usable if fits else rest).append(one)
        used |= one.files if fits else set()
    return usable, rest


def _joined(cached: list[Cached], rows: int) -> list[Cached]:
    """Those that a table of so many rows is joined with."""
    joined: list[Cached] = []
    for one in sorted(cached, key=lambda one: len(one.table)):
        if len(one.table) > max(rows * _FACTOR, _SMALL):
            break
        joined.append(one)
        rows += len(one.table)
    return joined


def _digest(file: BinaryIO, size: int) -> bytes:
    digest = hashlib.sha256()
    while size and (piece := file.read(min(size, _READ_AT_ONCE))):
        digest.update(piece)
        size -= len(piece)
    return digest.digest()


def _age(path: Path, now: float) -> float:
    try:
        return now - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
