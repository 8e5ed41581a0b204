"""A backup: entries go in, a snapshot comes out. A file that the parent snapshot has already is not opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from snappy import __version__, heap
from snappy.errors import Damaged, SourceError
from snappy.repository.bunch import ENOUGH, is_small
from snappy.repository.entries import Directory, Entry, Exported, Look, Node, Problem, Siblings
from snappy.repository.file_storer import FileStorer, Ledgers
from snappy.repository.format import HEX_ID, BlobId, BlobType, parse_id
from snappy.repository.journal import UNKNOWN, Journal
from snappy.repository.lstat import says_same
from snappy.repository.paths import ROOT, shown
from snappy.repository.progress import Cancelled, Problems, Progress, never
from snappy.repository.repo import Repository
from snappy.repository.snapshots import Snapshot, Summary, matches
from snappy.repository.tally import Tally
from snappy.repository.team import NO_WORKERS, Workers
from snappy.repository.tree import StoredNode
from snappy.repository.tree_builder import Before, Child, Folder, TreeBuilder
from snappy.repository.tree_reader import TreeReader

PROGRAM = f"snappy {__version__}"
NOT_KEPT = ("socket", "irregular")

Now = Callable[[], datetime]


def utc_now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class BackupResult:
    """What a backup did. ``snapshot.summary`` counts files, directories, blobs, and plain and stored bytes."""

    snapshot: Snapshot
    summary: Summary
    bytes_read: int
    """Bytes of the files that were opened: new ones and those that changed since the parent."""
    warnings: list[Problem]
    """What was left out or may be torn: the first thousand of ``warnings_total``."""
    warnings_total: int


def find_parent(repo: Repository, *, hostname: str, paths: Sequence[str]) -> Snapshot | None:
    """The newest snapshot of the same host and exactly the same paths, as restic chooses it."""
    wanted = sorted(paths)
    same = [one for one in repo.snapshots() if matches(one, hosts=[hostname]) and sorted(one.paths or ()) == wanted]
    return same[-1] if same else None


class _Some:
    """Objects of one directory, in their order, that are all the same as before, or small and new."""

    def __init__(self) -> None:
        self.names: list[bytes] = []
        self.same: list[StoredNode] = []
        self.new: list[Look] = []
        self.size = 0
        """Bytes of the new ones."""

    def add_same(self, name: bytes, stored: StoredNode) -> None:
        self.names.append(name)
        self.same.append(stored)

    def add_new(self, name: bytes, found: os.stat_result) -> None:
        self.names.append(name)
        self.new.append((name, found))
        self.size += found.st_size


class Archiver:
    """Makes one snapshot. The repository's index must be loaded, and a lock on it held.

    When ``cancelled`` ends it, no snapshot is written; what was stored until then the next backup finds again. What
    ``journal`` knows from an earlier attempt at the same backup is not read again. When there is much to read, and the
    source and the store let other processes reach them, ``workers`` read and store it.
    """

    def __init__(
        self,
        repo: Repository,
        *,
        parent: Snapshot | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled = never,
        journal: Journal | None = None,
        workers: Workers = NO_WORKERS,
        now: Now = utc_now,
    ) -> None:
        heap.tune(heap.FOR_PACKS)
        heap.collect_seldom()
        self._repo, self._parent, self._cancelled, self._now = repo, parent, cancelled, now
        self._progress = progress or Progress()
        self._journal, self._workers = journal, workers
        self._problems = Problems()
        self._trees = TreeReader(repo)
        started = now()
        self._summary = Summary(backup_start=started, backup_end=started)
        self._tally = Tally(self._summary)

    def backup(
        self,
        entries: Iterable[Exported],
        *,
        paths: Sequence[str],
        hostname: str,
        username: str = "",
        uid: int = 0,
        gid: int = 0,
        tags: Sequence[str] = (),
        excludes: Sequence[str] = (),
        time: datetime | None = None,
        force: bool = False,
    ) -> BackupResult:
        """Store the entries and a snapshot of them. With ``force`` every file is read, changed or not.

        An object that cannot be read is left out, with a warning. Raises :class:`SourceError` when the entries come
        out of order or there are none, and what the source, the repository and ``cancelled`` raise.
        """
        root = self._store(entries, force)
        self._repo.flush()
        self._cancelled()
        self._summary.backup_end = self._now()
        snapshot = Snapshot(
            time=time or self._summary.backup_start,
            parent=self._parent.id if self._parent else None,
            tree=root.hex(),
            paths=list(paths),
            hostname=hostname,
            username=username,
            uid=uid,
            gid=gid,
            excludes=list(excludes) or None,
            tags=list(tags) or None,
            program_version=PROGRAM,
            summary=self._summary,
        )
        self._repo.save_snapshot(snapshot)
        problems = self._problems
        return BackupResult(snapshot, self._summary, self._tally.bytes_read, problems.kept, problems.total)

    def _store(self, entries: Iterable[Exported], force: bool) -> BlobId:
        self._expect_as_before()
        builder = TreeBuilder(self._repo, self._tally, self._load_before(ROOT, self._old_root()))
        ledgers = Ledgers(self._tally, self._progress, self._problems, self._journal)
        with FileStorer(self._repo, ledgers, self._cancelled, self._workers) as files:
            for one in entries:
                files.check()
                if isinstance(one, Siblings):
                    self._take_siblings(builder, files, one, force)
                elif isinstance(one, Directory):
                    self._take_directory(builder, one, force)
                else:
                    self._take_entry(builder, files, one, force)
            builder.finish()
            files.wait()
            files.check()
        return self._root_of(builder)

    def _root_of(self, builder: TreeBuilder) -> BlobId:
        if builder.root is None or not builder.took_any:
            raise SourceError("nothing could be backed up: the source is empty or unreadable")
        return builder.root

    def _expect_as_before(self) -> None:
        before = self._parent.summary if self._parent else None
        if before is not None:
            self._progress.expect(files=before.total_files_processed, size=before.total_bytes_processed)

    def _can_be_kept(self, entry: Entry) -> bool:
        message = entry.error or entry.warning
        if not message and entry.node.type == "irregular":
            message = "it is of a type that cannot be backed up"
        if message:
            self._problems.add(entry.path, message)
        unreadable = entry.error and entry.node.type != "dir"
        return not unreadable and entry.node.type not in NOT_KEPT

    def _take_entry(self, builder: TreeBuilder, files: FileStorer, entry: Entry, force: bool) -> None:
        if not self._can_be_kept(entry):
            return
        folder = builder.locate(entry.path)
        node = entry.node
        stored = folder.known.get(node.name)
        if node.type == "dir":
            self._enter(builder, folder, entry.path, node, stored)
        else:
            self._take_file(builder, files, folder, entry, self._readable(entry.path, stored), force)

    def _take_directory(self, builder: TreeBuilder, one: Directory, force: bool) -> None:
        folder = builder.locate(one.path)
        stored = folder.known.get(folder.last_name)
        node = stored if not force and stored is not None and says_same(stored, one.found) else self._described(one)
        if one.below is not None:
            tree, files, size, folders = one.below
            self._tally.kept(files=files, size=size, folders=folders)
            self._progress.add(files=files, size=size)
            builder.pass_over(folder, node, stored, tree)
        else:
            self._enter(builder, folder, one.path, node, stored)

    def _described(self, one: Directory) -> Node:
        entry = one.entry()
        self._can_be_kept(entry)
        return entry.node

    def _enter(self, builder: TreeBuilder, folder: Folder, path: bytes, node: Child, stored: StoredNode | None) -> None:
        builder.enter(path, node, stored, self._before(folder, path, stored))

    def _take_file(
        self, builder: TreeBuilder, files: FileStorer, folder: Folder, entry: Entry, old: Node | None, force: bool
    ) -> None:
        node = entry.node
        if node.type == "file" and (force or not self._is_unchanged(entry.path, old, node)):
            self._read(builder, files, folder, entry, old, force)
        else:
            if node.type == "file" and old is not None:
                self._keep_content(old, node)
            builder.place(folder, node)

    def _take_siblings(self, builder: TreeBuilder, files: FileStorer, siblings: Siblings, force: bool) -> None:
        """Most are what the parent snapshot says, or small and new: those need no entry."""
        folder = builder.folder(siblings.folder)
        if folder is None:
            raise SourceError(f"the source yields what lies in {shown(siblings.folder)} out of order")
        may_bunch = siblings.recipe is not None and (self._journal is None or self._journal.is_new())
        some = _Some()
        for name, found in siblings.looks:
            stored = folder.known.get(name)
            if stored is None and may_bunch and is_small(found):
                some.add_new(name, found)
            elif stored and not force and says_same(stored, found) and self._is_whole(stored):
                some.add_same(name, stored)
            else:
                some = self._take_some(builder, files, folder, siblings, some)
                self._take_entry(builder, files, siblings.entry(name, found), force)
            if some.size >= ENOUGH:
                some = self._take_some(builder, files, folder, siblings, some)
        self._take_some(builder, files, folder, siblings, some)

    def _take_some(
        self, builder: TreeBuilder, files: FileStorer, folder: Folder, siblings: Siblings, some: _Some
    ) -> _Some:
        """Take them; the next ones are to be put into what is returned."""
        if some.names:
            builder.follow(folder, some.names)
        if some.same:
            sizes = [stored.size for stored in some.same if stored.type == "file"]
            self._tally.kept(files=len(sizes), size=sum(sizes))
            self._progress.add(files=len(sizes), size=sum(sizes))
            builder.keep(folder, some.same)
        if some.new and siblings.recipe:
            slot = builder.expect(folder)
            stored = partial(builder.deliver, folder, slot)
            files.submit_bunch(siblings.folder, siblings.recipe, some.new, stored)
        return _Some()

    def _is_whole(self, stored: StoredNode) -> bool:
        """Whether the repository has the content, where there has to be some."""
        if stored.type != "file":
            return True
        try:
            blobs = None if stored.content is None else [parse_id(blob) for blob in stored.content]
            return blobs is not None and self._repo.has_blobs(BlobType.DATA, blobs)
        except Damaged:
            return False

    def _keep_content(self, old: Node, node: Node) -> None:
        node.content = old.content
        self._tally.kept(files=1, size=node.size)
        self._progress.add(files=1, size=node.size)

    def _read(
        self, builder: TreeBuilder, files: FileStorer, folder: Folder, entry: Entry, old: Node | None, force: bool
    ) -> None:
        """Have the file stored, but for what an earlier attempt at this backup stored of it."""
        node = entry.node
        known = self._journal.known(entry) if self._journal else UNKNOWN
        if known.blobs and known.size == node.size:
            node.content = known.blobs
            self._tally.file(old, node)
            self._progress.add(files=1, size=node.size)
            builder.place(folder, node)
            return
        slot = builder.expect(folder)

        def stored(node: Node | None) -> None:
            if node is not None:
                self._tally.file(old, node)
            self._progress.add(files=1)
            builder.deliver(folder, slot, node)

        if entry.image is None:
            files.submit(entry, stored, known)
        else:
            files.submit_image(entry, entry.image, None if force else old, stored, known)

    def _is_unchanged(self, path: bytes, old: Node | None, node: Node) -> bool:
        """Whether the parent's content stands for the file's: all that the system says of it is the same."""
        if old is None or old.content is None or not _same_stat(old, node):
            return False
        if self._repo.has_blobs(BlobType.DATA, old.content):
            return True
        self._problems.add(path, "parts of it were missing in the repository; it was stored again")
        return False

    def _old_root(self) -> BlobId | None:
        return self._parent.tree_id if self._parent else None

    def _before(self, folder: Folder, path: bytes, stored: StoredNode | None) -> Before:
        tree = stored.subtree if stored else None
        if tree is None or not HEX_ID.match(tree):
            return Before()
        known = bytes.fromhex(tree)
        return self._load_before(path, known, folder.subtrees_after(known))

    def _load_before(self, path: bytes, tree: BlobId | None, siblings: Iterable[BlobId] = ()) -> Before:
        if tree is None:
            return Before()
        try:
            return Before(self._trees.load_plain(tree, siblings))
        except Damaged as error:
            self._tell_damage(path, error)
            return Before()

    def _readable(self, path: bytes, stored: StoredNode | None) -> Node | None:
        try:
            return stored.node() if stored else None
        except Damaged as error:
            self._tell_damage(path, error)
            return None

    def _tell_damage(self, path: bytes, error: Damaged) -> None:
        self._problems.add(path, f"the parent snapshot cannot be compared: {error.message}", error.code)


def _same_stat(old: Node, node: Node) -> bool:
    """A node without times says nothing about change."""
    return (
        old.type == "file"
        and (node.mtime_ns, node.ctime_ns) != (0, 0)
        and (old.size, old.mtime_ns, old.ctime_ns, old.inode) == (node.size, node.mtime_ns, node.ctime_ns, node.inode)
    )
