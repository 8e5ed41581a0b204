"""What browsing needs of a repository, whether it is open here or behind a service that holds its key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from snappy.errors import NotFound, StorageError
from snappy.repository.format import BlobId, BlobLocation, BlobType, PackId
from snappy.repository.snapshots import Snapshot
from snappy.repository.tree_reader import Library


class Browsable(Library, Protocol):
    """Any thread may call any method; see :class:`snappy.repository.repo.Repository` for what each raises."""

    def snapshots(self, *, strict: bool = False) -> list[Snapshot]: ...

    def find_snapshot(self, spec: str, **filters: Any) -> Snapshot: ...

    def load_index(self) -> None: ...

    def locate(self, kind: BlobType, blobs: Sequence[BlobId]) -> list[BlobLocation | None]: ...

    def close(self) -> None: ...

    def load_blobs(self, pack: PackId, entries: Iterable[BlobLocation]) -> Iterator[tuple[BlobLocation, bytes]]: ...


class MissingPath(NotFound, FileNotFoundError):
    """There is no such path in the snapshot."""

    hint = "`snappy ls` shows what is there"


class NoDirectory(NotFound, NotADirectoryError):
    """That is not a directory."""


class NoFile(StorageError, OSError, code="no-file", exit_code=5):
    """That is neither a file nor a link to one."""


class DirectoryThere(NoFile, IsADirectoryError):
    """That is a directory."""
