"""Copies snapshots into a repository with another key: what that one lacks is opened here and sealed there.

The order is a backup's: blobs, index files that list them, then the snapshots. Whenever it dies, the other repository
is whole, and the next copy goes on from what it lists. A copy keeps the id of the snapshot that it was first, as
restic's does: by it either program sees what was copied before.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from snappy import log
from snappy.errors import Damaged, NotFound, SnapshotNotFound
from snappy.repository.carrier import Carrier, Rows
from snappy.repository.listed_blobs import ListedBlobs
from snappy.repository.progress import Cancelled, Progress, never
from snappy.repository.repo import Repository
from snappy.repository.snapshots import Snapshot, copy_snapshot
from snappy.repository.store import FileType
from snappy.repository.used_blobs import UsedBlobs

_LOG = log.get(__name__)


class SnapshotForgotten(SnapshotNotFound, retryable=True):
    """A snapshot was forgotten while it was copied."""

    hint = "what is left is copied by the next attempt, or job"


class Copied(NamedTuple):
    """``name`` is the id of the copy that was made now, or was there."""

    snapshot: Snapshot
    name: str
    is_new: bool


class Copier:
    """One copy from ``source``, whose index nobody has loaded, to ``target``, likewise, under a lock on it. With
    ``resumes`` what a copy that was lost stored there and did not list is found."""

    def __init__(
        self,
        source: Repository,
        target: Repository,
        *,
        progress: Progress | None = None,
        cancelled: Cancelled = never,
        resumes: bool = False,
    ) -> None:
        self._source, self._target, self._cancelled = source, target, cancelled
        self._progress, self._resumes = progress or Progress(), resumes
        self._blobs = ListedBlobs(source, cancelled)
        self._used = UsedBlobs(source, self._blobs, cancelled)
        self._seen = bytearray()
        self._carrier = Carrier(source, self._blobs, target.save_unsealed, self._count, cancelled)

    def copy(self, snapshots: Iterable[Snapshot]) -> list[Copied]:
        """Copy those of the source's snapshots that the target does not have; all of them in the order of their times,
        with what became of each.

        Raises :class:`SnapshotForgotten`, :class:`Damaged` where the source lacks anything of theirs, StorageError,
        :class:`snappy.errors.RepositoryLocked` and what ``cancelled`` raises.
        """
        there = _Copies(self._target.snapshots())
        done: list[Copied] = []
        new: list[Snapshot] = []
        for snapshot in sorted(snapshots, key=lambda one: (one.time, one.id)):
            if found := there.of(snapshot):
                done.append(Copied(snapshot, found.id, False))
            else:
                new.append(snapshot)
        if new:
            with self._while_listed(new):
                done += self._copy_all(new)
        return sorted(done, key=lambda copied: (copied.snapshot.time, copied.snapshot.id))

    @contextmanager
    def _while_listed(self, snapshots: Sequence[Snapshot]) -> Iterator[None]:
        """The source is read without a lock. What a prune moves there is found; what it deletes after a snapshot was
        forgotten is no damage."""
        try:
            yield
        except (Damaged, NotFound) as error:
            listed = {name for name, _ in self._source.store.list(FileType.SNAPSHOT)}
            gone = next((one for one in snapshots if one.id not in listed), None)
            if gone is None:
                raise
            raise SnapshotForgotten(f"snapshot {gone.id[:8]} was forgotten while it was copied") from error

    def _copy_all(self, snapshots: Sequence[Snapshot]) -> Iterator[Copied]:
        self._target.load_index()
        if self._resumes:
            _LOG.info("going on with what is stored", unlisted_packs=self._target.load_unlisted().packs)
        self._blobs.learn()
        self._seen = bytearray(len(self._blobs))
        for portion in _portions(snapshots):
            self._used.mark(snapshot.tree_id for snapshot in portion)
            self._carry()
            for snapshot in portion:
                self._cancelled()
                yield Copied(snapshot, copy_snapshot(snapshot, self._source.documents, self._target.documents), True)

    def _carry(self) -> None:
        wanted = self._wanted()
        sizes = sum(self._size(rows) for rows in wanted.values())
        self._progress.expect(files=self._progress.files_done + len(wanted), size=self._progress.bytes_done + sizes)
        self._carrier.carry(wanted)
        self._target.flush()

    def _wanted(self) -> dict[int, Rows]:
        """What is used, was not looked at before, and is not in the target: one copy of each, by pack."""
        wanted: defaultdict[int, Rows] = defaultdict(lambda: array("I"))
        for row, (first, pack) in enumerate(self._blobs.places()):
            if self._blobs.used[first] and not self._seen[first]:
                self._seen[first] = 1
                place = self._blobs.location(row)
                if not self._target.has_blob(place.kind, place.id):
                    wanted[pack].append(row)
        return wanted

    def _size(self, rows: Rows) -> int:
        return sum(self._blobs.location(row).length for row in rows)

    def _count(self, pack: int, rows: Rows) -> None:
        self._progress.add(files=1, size=self._size(rows))


class _Copies:
    """A repository's snapshots, by what they are, or were, copies of."""

    def __init__(self, snapshots: Iterable[Snapshot]) -> None:
        self._by_origin: defaultdict[str, list[Snapshot]] = defaultdict(list)
        for snapshot in snapshots:
            for origin in {snapshot.id, _origin(snapshot)}:
                self._by_origin[origin].append(snapshot)

    def of(self, snapshot: Snapshot) -> Snapshot | None:
        """Its copy, if there is one that nobody changed since."""
        same = _likeness(snapshot)
        return next((one for one in self._by_origin.get(_origin(snapshot), ()) if _likeness(one) == same), None)


def _origin(snapshot: Snapshot) -> str:
    return snapshot.original or snapshot.id


def _likeness(snapshot: Snapshot) -> tuple[object, ...]:
    """What two that are copies of one have in common."""
    return (
        snapshot.time,
        snapshot.tree,
        snapshot.hostname,
        snapshot.username,
        snapshot.uid,
        snapshot.gid,
        frozenset(snapshot.paths or ()),
        frozenset(snapshot.tags or ()),
        tuple(snapshot.excludes or ()),
    )


def _portions(snapshots: Sequence[Snapshot]) -> Iterator[Sequence[Snapshot]]:
    """Each twice as long as the one before: the first are there soon, and the index is gone through a few times."""
    start, length = 0, 1
    while start < len(snapshots):
        yield snapshots[start : start + length]
        start, length = start + length, 2 * length
