"""The local filesystem, durable: what is visible is whole, and has reached the disk.

An object is written under a temporary name in its own directory, synced, and renamed (or linked, where it must not
replace); then the directory is synced. A temporary file is locked while its writer lives, so that the next start can
tell what a crash left behind.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from snappy.targets.drafts import PART_SUFFIX, Bytes, Draft, without_parts

OBJECT_MODE = 0o600
FOLDER_MODE = 0o700


class DurableLocalFileSystem(LocalFileSystem):
    """``file://`` with drafts that are synced; temporary files never show in a listing."""

    cachable = False

    def draft(self, path: str, *, exclusive: bool) -> Draft:
        return LocalDraft(Path(self._strip_protocol(path)), exclusive)

    def ls(self, path: str, detail: bool = False, **kwargs: Any) -> list[Any]:
        found: list[Any] = super().ls(path, detail=detail, **kwargs)
        return without_parts(found)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        folder = Path(self._strip_protocol(path))
        if folder.is_dir() and not exist_ok:
            raise FileExistsError(path)
        make_folders(folder)

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        folder = Path(self._strip_protocol(path))
        if folder.exists():
            raise FileExistsError(path)
        if create_parents:
            make_folders(folder)
        else:
            _make_folder(folder)


class LocalDraft:
    """A draft of one local file."""

    def __init__(self, path: Path, exclusive: bool) -> None:
        self._path, self._exclusive = path, exclusive
        make_folders(path.parent)
        self._part = path.parent / f".{secrets.token_hex(8)}{PART_SUFFIX}"
        self._handle = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, OBJECT_MODE)
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        self._settled = False

    def write(self, data: Bytes) -> None:
        self._settled = False
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._handle, rest) :]

    def settle(self) -> None:
        os.fsync(self._handle)
        self._settled = True

    def commit(self, within: float | None = None) -> None:
        if self._path.is_dir():
            raise IsADirectoryError(str(self._path))
        if not self._settled:
            self.settle()
        try:
            self._show()
        finally:
            sync_folder(self._path.parent)  # where the name is taken too: who took it may have died before this

    def _show(self) -> None:
        if self._exclusive:
            os.link(self._part, self._path)
            self._part.unlink()
        else:
            os.rename(self._part, self._path)
        self._close()

    def discard(self) -> None:
        if self._handle >= 0:
            self._part.unlink(missing_ok=True)
            self._close()

    def _close(self) -> None:
        handle, self._handle = self._handle, -1
        os.close(handle)


def make_folders(folder: Path) -> None:
    """Create ``folder`` and what is missing above it, each synced into its parent."""
    if not folder.is_dir():
        make_folders(folder.parent)
        try:
            _make_folder(folder)
        except FileExistsError:
            if not folder.is_dir():
                raise NotADirectoryError(str(folder)) from None


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(root: Path) -> int:
    """Remove the temporary files below ``root`` whose writers are dead; returns how many."""
    return sum(_remove_if_dead(part) for part in root.rglob(f".*{PART_SUFFIX}"))


def _remove_if_dead(part: Path) -> bool:
    try:
        handle = os.open(part, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        part.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def _make_folder(folder: Path) -> None:
    folder.mkdir(FOLDER_MODE)
    sync_folder(folder.parent)
