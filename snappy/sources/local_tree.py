"""Walks local directories: each object is looked at once, no file is opened, no symlink on the way is followed.

Directories are opened relative to their parents and compared with what ``lstat`` said of them, so somebody who swaps
a directory for a symlink while the backup runs cannot lead it elsewhere.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from snappy.errors import SourceMissing
from snappy.repository.entries import Directory, Entry, Exported, Look, Node, NodeType, Passed, Recipe, Siblings
from snappy.repository.paths import ROOT, join, split
from snappy.sources.exclusion import Exclusion, Warn
from snappy.sources.local_node import LOCAL_FOLDER, local_entry

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
OPEN_FOLDERS = 256
TOGETHER = 64
"""Files that are looked at before the first of them may be read."""
OUR_SNAPSHOT = b".snappy-snapshot-"
"""Begins the names of subvolumes that are read instead of others."""
SUBVOLUME_INODES = (2, 256)
"""Of a subvolume's top, and of what a snapshot has in its place."""
HAS_PROC = os.path.isdir("/proc/self/fd")

Moved = dict[bytes, bytes]
"""By a directory's path, where it and all below it are read from; never through a symlink."""
NOTHING_MOVED: Moved = {}


@dataclass
class Wanted:
    """A node of the tree of paths that were asked for; ``whole`` when all below it is wanted."""

    whole: bool = False
    children: dict[bytes, Wanted] = field(default_factory=dict)


def plan(paths: list[bytes]) -> Wanted:
    """Merge paths into one tree: what lies below another path that is asked for is not asked for twice."""
    top = Wanted()
    for path in paths:
        here = top
        for name in split(path):
            here = here.children.setdefault(name, Wanted())
        here.whole = True
    return top


class Folder:
    """One open directory of the walk, and the names in it that are still to be visited.

    ``whole`` says that everything in it is wanted; else only ``wanted``, the names on the way to something. Names in
    ``wanted`` are never excluded. ``device`` is the one that a walk of one file system stays on. ``real`` is where it
    is read from, and ``moved`` says so for those in it that are not read from there.
    """

    def __init__(self, path: bytes, found: os.stat_result, handle: int, wanted: Wanted | None, whole: bool) -> None:
        self.path, self.found, self.handle, self.whole = path, found, handle, whole
        self.real, self.moved = path, NOTHING_MOVED
        self.device = found.st_dev
        self.wanted = wanted.children if wanted else {}
        self.names: Iterator[bytes] = iter(())
        self.is_open = True

    def place(self, name: bytes) -> bytes:
        """A path for ``name`` that stays true when directories above are moved."""
        if name in self.moved:
            return self.moved[name]
        return b"/proc/self/fd/%d/%s" % (self.handle, name) if HAS_PROC else join(self.real, name)

    def real_of(self, name: bytes) -> bytes:
        """Where ``name`` is read from."""
        return self.moved.get(name) or join(self.real, name)

    def reopen(self) -> None:
        """Open again what was closed to save descriptors. Raises ``OSError``."""
        if not self.is_open:
            self.handle = open_folder(self.real, self.found, None)
            self.is_open = True

    def close(self) -> None:
        if self.is_open:
            os.close(self.handle)
            self.is_open = False


def open_folder(path: bytes, found: os.stat_result | None, above: int | None) -> int:
    """Open a directory, by name in ``above``. Raises ``OSError`` when it is not the one that ``lstat`` found."""
    handle = os.open(path, FOLDER_FLAGS, dir_fd=above)
    if found is not None and not os.path.samestat(found, os.fstat(handle)):
        os.close(handle)
        raise OSError(errno.ESTALE, "was replaced by another directory while the backup ran")
    return handle


class LocalTree:
    """The entries of the wanted paths, in the order that :class:`Entry` demands, without what is ``passed``; or
    ``backwards``, siblings in the opposite order. Iterate once."""

    def __init__(
        self,
        wanted: Wanted,
        exclusion: Exclusion,
        *,
        one_file_system: bool = False,
        passed: Passed = lambda _: None,
        backwards: bool = False,
        moved: Moved | None = None,
    ) -> None:
        self._root = (moved or {}).get(ROOT, ROOT)
        self._moved: dict[bytes, Moved] = {}
        for path, real in (moved or {}).items():
            self._moved.setdefault(os.path.dirname(path), {})[os.path.basename(path)] = real
        self._passed, self._backwards = passed, backwards
        self._wanted, self._exclusion, self._one_file_system = wanted, exclusion, one_file_system
        self._may_leave_out = one_file_system or bool(exclusion)
        self._stack: list[Folder] = []

    def __iter__(self) -> Iterator[Exported]:
        try:
            self._push_root()
            while self._stack:
                yield from self._inside(self._stack[-1])
        finally:
            for folder in self._stack:
                folder.close()

    def _push_root(self) -> None:
        try:
            handle = open_folder(self._root, None, None)
            root = Folder(ROOT, os.fstat(handle), handle, self._wanted, self._wanted.whole)
            root.real, root.moved = self._root, self._moved.get(ROOT, NOTHING_MOVED)
            self._push(root)
            root.names = iter(self._names(root, lambda _: None))
        except OSError as error:
            raise SourceMissing(f"the root directory cannot be read: {error.strerror}") from error

    def _inside(self, folder: Folder) -> Iterator[Exported]:
        """What is in the directory, as far as the next one in it, or to its end."""
        files: list[Look] = []
        for name in folder.names:
            seen = self._look(folder, name)
            if isinstance(seen, os.stat_result) and _is_plain(seen.st_mode) and name not in folder.wanted:
                files.append((name, seen))
                if len(files) < TOGETHER:
                    continue
                seen = None
            if files:
                yield self._siblings(folder, files)
                files = []
            entry = self._take(folder, name, seen) if isinstance(seen, os.stat_result) else seen
            if entry is not None:
                yield entry
            if self._stack[-1] is not folder:
                return
        if files:
            yield self._siblings(folder, files)
        folder.close()
        self._stack.pop()

    def _look(self, folder: Folder, name: bytes) -> os.stat_result | Entry | None:
        """What ``lstat`` says, or the entry of what cannot be looked at; nothing where the object is to be left out."""
        wanted = folder.wanted and name in folder.wanted
        try:
            folder.reopen()
            moved = folder.moved and folder.moved.get(name)
            found = os.lstat(moved) if moved else os.stat(name, dir_fd=folder.handle, follow_symlinks=False)
        except FileNotFoundError:
            return _unreadable(join(folder.path, name), "it vanished") if wanted else None
        except OSError as error:
            return _unreadable(join(folder.path, name), f"it cannot be looked at: {error.strerror}")
        return None if self._may_leave_out and not wanted and self._left_out(folder, name, found) else found

    def _siblings(self, folder: Folder, files: list[Look]) -> Siblings:
        return Siblings(folder.path, files, partial(self._describe, folder), Recipe(LOCAL_FOLDER, (folder.real,)))

    def _left_out(self, folder: Folder, name: bytes, found: os.stat_result) -> bool:
        is_folder = stat.S_ISDIR(found.st_mode)
        return (
            (self._one_file_system and found.st_dev != folder.device and not is_folder)
            or (not is_folder and self._exclusion.by_size(found.st_size))
            or self._exclusion.by_path(join(folder.path, name), directory=is_folder)
        )

    def _take(self, folder: Folder, name: bytes, found: os.stat_result) -> Entry | Directory | None:
        wanted = folder.wanted.get(name)
        if stat.S_ISSOCK(found.st_mode) and wanted is None:
            return None
        if not stat.S_ISDIR(found.st_mode):
            return _not_on_the_way(self._describe(folder, name, found), wanted)
        if name.startswith(OUR_SNAPSHOT) and found.st_ino in SUBVOLUME_INODES:
            return None
        directory = Directory(join(folder.path, name), found, partial(self._describe, folder, name, found))
        is_mount_point = self._one_file_system and wanted is None and found.st_dev != folder.device
        if is_mount_point:  # what is mounted there is left out, the place itself is kept
            return directory
        below = self._passed(directory.path)
        return self._enter(folder, directory, wanted) if below is None else directory._replace(below=below)

    def _describe(self, folder: Folder, name: bytes, found: os.stat_result) -> Entry:
        return local_entry(join(folder.path, name), folder.place(name), found, folder.real_of(name))

    def _enter(self, above: Folder, directory: Directory, wanted: Wanted | None) -> Entry | Directory:
        """The directory, or its entry when there is something to be said of it."""
        warnings: list[str] = []
        try:
            name = os.path.basename(directory.path)
            moved = above.moved and above.moved.get(name)
            handle = open_folder(moved or name, directory.found, None if moved else above.handle)
            whole = above.whole or (wanted is not None and wanted.whole)
            folder = Folder(directory.path, directory.found, handle, wanted, whole)
            if self._moved:
                folder.real, folder.moved = above.real_of(name), self._moved.get(folder.path, NOTHING_MOVED)
            self._push(folder)
            folder.names = iter(self._names(folder, warnings.append))
        except OSError as error:
            return _remarked(directory.entry(), error=f"the directory cannot be read: {error.strerror}")
        return _remarked(directory.entry(), warning=warnings[-1]) if warnings else directory

    def _names(self, folder: Folder, warn: Warn) -> list[bytes]:
        if not folder.whole:
            return sorted(folder.wanted, reverse=self._backwards)
        names = [os.fsencode(name) for name in os.listdir(folder.handle)]
        tag = self._exclusion.tag_of(folder.handle, names, warn)
        taken = names if tag is None else {tag, *folder.wanted}.intersection(names)
        return sorted(taken, reverse=self._backwards)

    def _push(self, folder: Folder) -> None:
        self._stack.append(folder)
        self._spare_descriptors()

    def _spare_descriptors(self) -> None:
        """Close the folder that will be needed last, when the walk is deep."""
        if len(self._stack) > OPEN_FOLDERS:
            self._stack[-OPEN_FOLDERS - 1].close()


class LocalCensus(LocalTree):
    """The same walk for who wants to know how much there is: entries that hold a type and a size alone."""

    def _describe(self, folder: Folder, name: bytes, found: os.stat_result) -> Entry:
        kind: NodeType = (
            "dir" if stat.S_ISDIR(found.st_mode) else "file" if stat.S_ISREG(found.st_mode) else "irregular"
        )
        return Entry(path=join(folder.path, name), node=Node(name=name, type=kind, size=found.st_size))


def _unreadable(path: bytes, why: str) -> Entry:
    return Entry(path=path, node=Node(name=os.path.basename(path), type="irregular"), error=why)


def _is_plain(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def _remarked(entry: Entry, *, error: str = "", warning: str = "") -> Entry:
    entry.error, entry.warning = error, warning or entry.warning
    return entry


def _not_on_the_way(entry: Entry, wanted: Wanted | None) -> Entry:
    """A file where a directory on the way to something wanted was expected is an error, not a silent success."""
    if wanted is not None and not wanted.whole:
        entry.error = "it is not a directory"
    return entry
