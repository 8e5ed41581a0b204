"""Repositories for tests: in memory, with a key derivation that costs nothing, and filesystems that fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fsspec.implementations.memory import MemoryFileSystem

from snappy.repository.format import BlobId, BlobType
from snappy.repository.keys import ScryptCost
from snappy.repository.locks import LockJob, LockOwner
from snappy.repository.pack_writer import DEFAULT_OPTIONS, Options
from snappy.repository.repo import Repository
from snappy.repository.store import Store

PASSWORD = "correct horse"
CHEAP = ScryptCost(n=2, r=1, p=1)
OWNER = LockOwner(hostname="snappy.site.r1", username="tester", pid=77, job=LockJob("job-1", 1))


class PrivateMemory(MemoryFileSystem):  # type: ignore[misc]
    """A filesystem in memory that shares nothing with others of its class."""

    cachable = False
    protocol = "private-memory"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.store: dict[str, Any] = {}
        self.pseudo_dirs = [""]


class Interposed(PrivateMemory):
    """Calls ``before(method, path)`` ahead of each operation; what that raises is what the caller sees."""

    def __init__(self, before: Callable[[str, str], None]) -> None:
        super().__init__()
        self.before = before

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        self.before("pipe_file", path)
        super().pipe_file(path, value, mode=mode, **kwargs)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        self.before("cat_file", path)
        data: bytes = super().cat_file(path, start=start, end=end, **kwargs)
        return data

    def rm_file(self, path: str) -> None:
        self.before("rm_file", path)
        super().rm_file(path)


def memory_store(fs: MemoryFileSystem | None = None) -> Store:
    """A store on its own filesystem in memory."""
    return Store(PrivateMemory() if fs is None else fs, "/repo")


def new_repository(store: Store | None = None, options: Options = DEFAULT_OPTIONS) -> Repository:
    """A new, empty repository that opens with ``PASSWORD``."""
    return Repository.init(store or memory_store(), PASSWORD, options=options, cost=CHEAP)


def reopened(repository: Repository, options: Options = DEFAULT_OPTIONS) -> Repository:
    """The same repository as another process sees it."""
    again = Repository.open(repository.store, PASSWORD, options=options)
    again.load_index()
    return again


def forget(repository: Repository, kind: BlobType, blob: BlobId | None = None) -> None:
    """Have the index in memory know that blob no more, or none of that kind."""
    index = repository.index
    kept = [place for place in index if place.kind is not kind or blob not in (None, place.id)]
    index.__init__()  # the reader and the writer keep the same object
    index.add(kept)


def flip(store: Store, path: str, position: int) -> None:
    """Flip one bit of a file, beside the store's back; ``path`` is relative to the repository."""
    fs = store._fs
    data = bytearray(fs.cat_file(f"/repo/{path}"))
    data[position] ^= 1
    fs.pipe_file(f"/repo/{path}", bytes(data))
