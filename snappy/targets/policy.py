"""The guard of a target: what may be done, where, and under which names.

Rights are letters: ``r`` read, ``l`` list, ``w`` write what is new, ``W`` replace, ``d`` delete. ``rlw`` is
append-only; who may write also removes the locks that it wrote, and those that its grant names (:mod:`lock_book`),
and a key that the same job wrote.
Every path stays below the root.
An object of a repository, whose name is the SHA-256 of its bytes, is verified before it becomes visible.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

from fsspec import AbstractFileSystem

from snappy.bus.failures import DirectoryInTheWay, ExistingFile, MissingFile, RefusedFile, store_code
from snappy.bus.grants import Grant
from snappy.errors import AccessDenied, UsageError
from snappy.targets.drafts import Bytes, draft
from snappy.targets.guarded import GuardedDraft, WritableFile
from snappy.targets.lock_book import LockBook
from snappy.targets.ranges import RemoteRange

READ, LIST, WRITE, OVERWRITE, DELETE = LETTERS = "rlwWd"
APPEND_ONLY = "rlw"
LOCKS = "locks/"
KEYS = "keys/"
COPY_PIECE = 1 << 20

Ask = Callable[[str], Grant | None]
"""Asked with a right's letter; the grant that holds it (None where grants are off). Raises AccessDenied or
AttemptOver."""


def clean(path: str) -> str:
    """``path`` relative to the root, without empty segments. Raises AccessDenied for what could leave it."""
    segments = [segment for segment in path.split("/") if segment]
    if any(segment in (".", "..") or "\0" in segment for segment in segments):
        raise RefusedFile(f"the path {path!r} leaves the target")
    return "/".join(segments)


def _allow(_right: str) -> None:
    """Nobody beyond the policy is asked."""


class PolicyFileSystem(AbstractFileSystem):
    """Any fsspec filesystem below ``root``, with ``rights``. Synchronous, and safe to call from several threads.

    Each operation asks the policy's own rights, then ``ask``; a write does so when it opens and again at the instant
    the object becomes visible. Raises UsageError where ``rights`` holds another letter.
    """

    cachable = False
    protocol = "policy"

    def __init__(
        self,
        fs: AbstractFileSystem,
        root: str = "",
        rights: str = APPEND_ONLY,
        ask: Ask = _allow,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        if unknown := set(rights) - set(LETTERS):
            raise UsageError(f"no right has the letter {min(unknown)!r}", hint=f"rights are letters of {LETTERS!r}")
        self.fs, self.root, self.rights = fs, root.rstrip("/"), frozenset(rights)
        self._ask, self._clock = ask, clock
        self._locks, self._keys = LockBook(), LockBook()

    def asking(self, ask: Ask) -> PolicyFileSystem:
        """The same files, for a caller whose every operation is put to ``ask`` as well."""
        view = object.__new__(type(self))  # a copy would be made anew by fsspec, with books of its own
        view.__dict__.update(self.__dict__, _ask=ask)
        return view

    # ---- rights

    def demand(self, right: str) -> Grant | None:
        """The grant that holds ``right``. Raises AccessDenied, or what ``ask`` raises, where none does."""
        if right not in self.rights:
            raise RefusedFile(f"the target's policy does not grant the right {right!r}")
        return self._ask(right)

    def _holds(self, right: str) -> bool:
        try:
            self.demand(right)
        except AccessDenied:
            return False
        return True

    def _demand_removal(self, path: str) -> None:
        if path.startswith(LOCKS):
            self._demand_lock_removal(path)
        elif not self._is_own_key(path):
            self._demand_deletion(path)

    def _demand_deletion(self, path: str) -> None:
        grant = self.demand(DELETE)
        if grant is not None and not path.startswith(grant.deletes):
            raise RefusedFile(f"the grant does not let {path!r} be deleted")

    def _demand_lock_removal(self, path: str) -> None:
        if self._locks.may_remove(path.removeprefix(LOCKS), self.demand(WRITE)):
            return
        try:
            self._demand_deletion(path)
        except AccessDenied as error:
            raise RefusedFile("the lock was written under another grant, and this one does not name it") from error

    def _is_own_key(self, path: str) -> bool:
        """Who loses the race to make a repository takes its key away: restic would try it, and fail."""
        if not path.startswith(KEYS) or not self._holds(WRITE):
            return False
        grant = self.demand(WRITE)
        return grant is not None and self._keys.is_writer(path, grant)

    def _written(self, path: str, grant: Grant | None) -> None:
        if path.startswith(LOCKS):
            self._locks.wrote(path.removeprefix(LOCKS), grant)
        elif path.startswith(KEYS):
            self._keys.wrote(path, grant)

    # ---- reading

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        path = clean(path)
        self.demand(LIST)
        if not path:
            return {"name": "", "size": 0, "type": "directory"}
        item = self._shown(self.fs.info(self._below(path)))
        if item["type"] == "directory" and not self.has_directories and not self._has_content(path):
            raise MissingFile(f"there is no object {path!r}")
        return item

    def exists(self, path: str, **kwargs: Any) -> bool:
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        path = clean(path)
        self.demand(LIST)
        found = [item for item in map(self._shown, self._listed(path)) if item["name"] != path or _is_file(item)]
        if path and not self.has_directories and not self._any_object(found):
            raise MissingFile(f"there is no object {path!r}")
        return found if detail else [item["name"] for item in found]

    def find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        **kwargs: Any,
    ) -> Any:
        path = clean(path)
        self.demand(LIST)
        items = self.fs.find(self._below(path), maxdepth=maxdepth, withdirs=withdirs, detail=True)
        shown = map(self._shown, items.values())  # SeaweedFS tells a folder whose last object is gone
        found = {item["name"]: item for item in shown if withdirs or _is_file(item)}
        return found if detail else sorted(found)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        path = clean(path)
        self.demand(READ)
        try:
            content: bytes = self.fs.cat_file(self._below(path), start=start, end=end)
        except OSError as error:
            if store_code(error) == "InvalidRange":
                return b""
            raise
        return content

    def _has_content(self, path: str) -> bool:
        """Whether an object lies below; some S3 servers go on listing a directory whose last object is gone."""
        return self._any_object([item for item in map(self._shown, self._listed(path)) if item["name"] != path])

    def _any_object(self, items: list[dict[str, Any]]) -> bool:
        return any(map(_is_file, items)) or any(self._has_content(item["name"]) for item in items)

    def _listed(self, path: str) -> list[dict[str, Any]]:
        try:
            found: list[dict[str, Any]] = self.fs.ls(self._below(path), detail=True)
        except FileNotFoundError as error:
            if path or store_code(error) == "NoSuchBucket":
                raise
            return []
        return found

    # ---- writing

    def write(self, path: str, *, exclusive: bool = False) -> GuardedDraft:
        """A draft of the object; nothing shows before its commit.

        Without the right to replace, a draft is exclusive even where the caller did not ask for that, and its commit
        then raises AccessDenied where the name is taken.
        """
        path = clean(path)
        if not path:
            raise DirectoryInTheWay("the root of a target is a directory")
        self.demand(WRITE)
        right = WRITE if exclusive or not self._holds(OVERWRITE) else OVERWRITE
        inner = draft(self.fs, self._below(path), exclusive=right == WRITE)
        taken = ExistingFile if exclusive else RefusedFile
        allow, done = lambda: self.demand(right), lambda grant: self._written(path, grant)
        return GuardedDraft(inner, path, allow, done, taken, self._clock)

    def pipe_file(self, path: str, value: Bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        with self.write(path, exclusive=mode == "create") as writer:
            writer.write(value)
            writer.commit()

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        if self.isdir(path1):
            return self.makedirs(path2, exist_ok=True)
        with self._open(path1) as source, self.write(path2) as writer:
            while piece := source.read(COPY_PIECE):
                writer.write(piece)
            writer.commit()
        return None

    def rm_file(self, path: str) -> float:
        """The value: until when, in Unix seconds, the storage keeps what does not show any more; 0: it does not."""
        path = clean(path)
        self._demand_removal(path)
        self.fs.rm_file(self._below(path))
        self._locks.removed(path.removeprefix(LOCKS))
        return float(self.fs.kept_until(self._below(path))) if hasattr(self.fs, "kept_until") else 0.0

    def _rm(self, path: str) -> None:
        self.rm_file(path)

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        path = clean(path)
        self.demand(WRITE)
        if self.has_directories and path:
            self.fs.mkdir(self._below(path), create_parents=create_parents)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        path = clean(path)
        self.demand(WRITE)
        if self.has_directories and path:
            self.fs.makedirs(self._below(path), exist_ok=exist_ok)

    def rmdir(self, path: str) -> None:
        path = clean(path)
        self.demand(WRITE if f"{path}/".startswith(LOCKS) else DELETE)
        if self.has_directories and path:
            self.fs.rmdir(self._below(path))

    @property
    def has_directories(self) -> bool:
        """Whether a directory can be without content; on an object store it cannot, and none is ever made."""
        return not getattr(self.fs, "async_impl", False)

    # ---- files

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        if mode in ("wb", "xb"):
            return WritableFile(self.write(path, exclusive=mode == "xb"), kwargs.get("autocommit", True))
        if mode != "rb":
            raise NotImplementedError(f"files cannot be opened with mode {mode!r}")
        path = clean(path)
        self.demand(READ)
        if "memory" in self.fs.protocol:
            # Every reader of a memory file would share its position.
            return io.BytesIO(self.fs.cat_file(self._below(path)))
        return self.fs.open(self._below(path), "rb")

    def open_range(self, path: str, start: int, size: int) -> Any:
        """A file with these bytes of an object, at their places in it; others may be in it as well."""
        if self.has_directories and not getattr(self.fs, "reads_ranges", False):
            return self._open(path)
        self.demand(READ)
        return RemoteRange(self.fs, self._below(clean(path)), start, start + size)

    # ---- names

    def _below(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root

    def _shown(self, item: dict[str, Any]) -> dict[str, Any]:
        root = self.fs._strip_protocol(self.root)
        name = item["name"].removeprefix(root)
        # Some S3 servers keep an empty object "folder/" to stand for a directory.
        kind = "directory" if name.endswith("/") else item["type"]
        return {"name": name.strip("/"), "size": item["size"] or 0, "type": kind, "modified": _modified(item)}


def _is_file(item: dict[str, Any]) -> bool:
    return bool(item["type"] != "directory")


def _modified(item: dict[str, Any]) -> float:
    when = item.get("mtime") or item.get("LastModified") or item.get("created") or 0.0
    return float(when.timestamp() if hasattr(when, "timestamp") else when)
