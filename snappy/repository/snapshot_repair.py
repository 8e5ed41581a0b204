"""Gives snapshots that lack something successors without it, and removes the old ones if that is wanted."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from snappy.errors import Corrupt, Damaged, NotFound
from snappy.repository.findings import Findings, Kind
from snappy.repository.mending import Mender, Repaired
from snappy.repository.progress import Cancelled, Problems, Progress, never
from snappy.repository.repo import Repository
from snappy.repository.snapshots import Snapshot, find_name, load_snapshot
from snappy.repository.store import FileType
from snappy.repository.tree_repair import TreeRepair

REPAIRED = "repaired"
"""The tag of a snapshot that was made anew beside the old one."""


class SnapshotRepair:
    """Repairs snapshots of an open repository, whose index nobody has loaded. Hold an exclusive lock, unless
    ``dry_run``. With ``forget`` the old snapshots go.

    A snapshot that cannot be read, or whose root cannot, has no successor; it goes with ``forget`` if it is named.
    """

    def __init__(
        self,
        repo: Repository,
        *,
        forget: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
        cancelled: Cancelled = never,
    ) -> None:
        self._repo, self._forget, self._dry_run, self._cancelled = repo, forget, dry_run, cancelled
        self._progress = progress or Progress()
        self._findings, self._problems = Findings(), Problems()
        self._mender = Mender(repo, self._findings, dry_run=dry_run)
        self._trees = TreeRepair(repo, self._findings, self._problems, cancelled, dry_run=dry_run)
        self._snapshots: dict[str, Snapshot] = {}
        self._unreadable: dict[str, str] = {}

    def repair(self, ids: Collection[str] = ()) -> Repaired:
        """Repair these (ids, or their first letters), or all. May be called again after any death. Raises
        SnapshotNotFound, Damaged where the index has to be repaired first, StorageError, and what ``cancelled``
        raises."""
        self._load()
        named = {find_name(self._repo.store, spec) for spec in ids}
        self._repo.load_index()
        chosen = [one for name, one in self._snapshots.items() if not named or name in named]
        self._progress.expect(files=len(chosen), size=0)
        self._trees.survey(one.tree_id for one in chosen)
        written = sum(self._repair_one(snapshot, named) for snapshot in chosen)
        for name, reason in self._unreadable.items():
            if not named or name in named:
                self._give_up(name, reason, named)
        return Repaired(
            written=written,
            removed=self._mender.removed,
            findings=self._findings.kept(),
            finding_count=self._findings.damage + self._findings.hints,
            lost=self._problems.kept,
            lost_count=self._problems.total,
        )

    def _load(self) -> None:
        for name, size in self._repo.store.list(FileType.SNAPSHOT):
            try:
                snapshot = load_snapshot(self._repo.documents, name, size)
                if snapshot.tree_id:
                    self._snapshots[name] = snapshot
            except NotFound:
                continue
            except (Damaged, Corrupt) as error:
                self._unreadable[name] = error.message

    def _repair_one(self, snapshot: Snapshot, named: set[str]) -> bool:
        """Whether it has a new successor."""
        self._cancelled()
        self._progress.add(files=1)
        if self._trees.is_lost(snapshot.tree_id):
            self._give_up(snapshot.id, "the tree of its topmost directory cannot be read", named)
            return False
        if not self._trees.is_changing(snapshot.tree_id):
            return False
        is_new = self._save_successor(snapshot, self._trees.replaced(snapshot.tree_id).hex())
        if self._forget:
            self._mender.remove(FileType.SNAPSHOT, snapshot.id)
        return is_new

    def _save_successor(self, old: Snapshot, tree: str) -> bool:
        """Unless it is there: a repair that died before it removed the old one saved it."""
        if any((one.original, one.tree) == (old.id, tree) for one in self._snapshots.values()):
            return False
        if not self._dry_run:
            tags = old.tags if self._forget else [*(old.tags or ()), REPAIRED]
            self._repo.flush()
            self._repo.save_snapshot(msgspec.structs.replace(old, tree=tree, original=old.id, tags=tags))
        return True

    def _give_up(self, name: str, reason: str, named: set[str]) -> None:
        is_gone = self._forget and name in named and self._mender.remove(FileType.SNAPSHOT, name)
        self._findings.add(Kind.SNAPSHOT_LOST, name, f"{'removed: ' if is_gone else ''}{reason}")
