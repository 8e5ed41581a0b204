"""Restores contents to any fsspec filesystem. Most of them hold no links, owners, modes or times: what is lost is
reported once."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from snappy.errors import SourceMissing
from snappy.repository.entries import FileWriter, Node, Standing
from snappy.repository.paths import split

IN_MEMORY = 1 << 20
WHOLE = 16 << 20
"""Objects up to this many bytes are written with one request."""
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "http", "https", "hf"})
"""Protocols that have no directories; making one may even make a bucket."""
LOST = "this storage keeps contents and names only: no links, owners, modes, times or extended attributes"


class ObjectFile:
    """An object of a restore; see :class:`snappy.repository.entries.FileWriter`. It is kept in memory, and beyond
    1 MiB in an unnamed temporary file, until it is complete: objects are written in one piece."""

    def __init__(self, filesystem: Any, place: str, size: int, finish: Callable[[], list[str]]) -> None:
        self._fs, self._place, self._size, self.finish = filesystem, place, size, finish
        self._lock = threading.Lock()
        self._parts = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - lives until close
        self._is_open = True

    def write_at(self, offset: int, data: bytes) -> None:
        with self._lock:
            self._parts.seek(offset)
            self._parts.write(data)

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            with self._parts:
                self._parts.truncate(self._size)
                self._parts.seek(0)
                self._upload()

    def discard(self) -> None:
        """An object that is not complete is not written at all."""
        self._is_open = False
        self._parts.close()

    def _upload(self) -> None:
        with _translated():
            if self._size <= WHOLE:
                self._fs.pipe_file(self._place, self._parts.read())
            else:
                with self._fs.open(self._place, "wb") as remote:
                    shutil.copyfileobj(self._parts, remote, WHOLE)


class ObjectSink:
    """See :class:`snappy.repository.entries.Sink`. ``place`` is a path on ``filesystem``; with ``keep`` objects that
    are there are left as they are.

    Raises :class:`SourceMissing` for a bucket that is not there: some servers would make it at the first write.
    """

    def __init__(self, filesystem: Any, place: str, *, keep: bool = False) -> None:
        self._fs, self._place, self._keep = filesystem, place.rstrip("/"), keep
        self._has_folders = OBJECT_STORES.isdisjoint(_protocols(filesystem))
        if not self._has_folders:
            _require_bucket(filesystem, place.partition("/")[0])
        self._told = False

    def standing(self, path: bytes, node: Node) -> Standing:
        if not self._keep:
            return Standing.IN_THE_WAY
        with _translated():
            try:
                self._fs.info(
                    self._at(path)
                )  # `exists` takes a storage that does not answer for one without the object
            except FileNotFoundError:
                return Standing.IN_THE_WAY
        return Standing.LEFT

    def reuse(self, path: bytes, node: Node) -> None:
        """To fetch an object costs what a pack costs: it is written anew."""

    def directory(self, path: bytes, node: Node) -> None:
        """Object stores have no directories; others make theirs here."""
        if self._has_folders:
            with _translated():
                self._fs.makedirs(self._at(path), exist_ok=True)

    def file(self, path: bytes, node: Node) -> FileWriter:
        return ObjectFile(self._fs, self._at(path), node.size, self._lost_once)

    def link(self, path: bytes, existing: bytes) -> None:
        """A second copy: it costs its bytes again, but nothing is missing."""
        with _translated():
            self._fs.cp_file(self._at(existing), self._at(path))

    def special(self, path: bytes, node: Node) -> None:
        raise OSError(errno.EOPNOTSUPP, f"this storage cannot hold an object of type {node.type}")

    def finish(self, path: bytes, node: Node) -> list[str]:
        return self._lost_once()

    def _lost_once(self) -> list[str]:
        told, self._told = self._told, True
        return [] if told else [LOST]

    def close(self) -> None:
        self._fs.invalidate_cache()

    def _at(self, path: bytes) -> str:
        names = [os.fsdecode(name) for name in split(path)]
        if any(_not_text(name) for name in names):
            raise OSError(errno.EILSEQ, "its name is not UTF-8, which this storage cannot hold")
        return "/".join([self._place, *names])


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # filesystems raise what their libraries raise
        raise OSError(errno.EIO, str(error) or type(error).__name__) from error


def _not_text(name: str) -> bool:
    return any("\udc80" <= letter <= "\udcff" for letter in name)


def _require_bucket(filesystem: Any, bucket: str) -> None:
    try:
        missing = not filesystem.exists(bucket)
    except PermissionError:
        missing = False  # who may write need not be allowed to look
    except Exception as error:  # filesystems raise what their libraries raise
        raise SourceMissing(f"{bucket} cannot be reached: {error}") from error
    if missing:
        raise SourceMissing(f"the bucket {bucket} does not exist")


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
