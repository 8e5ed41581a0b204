"""Snapshots: what a backup leaves, as restic's JSON. Source: restic's ``doc/design.rst``, "Snapshots"."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import msgspec

from snappy import log
from snappy.decoding import from_json
from snappy.errors import Damaged, NotFound, SnapshotNotFound
from snappy.repository.documents import Documents
from snappy.repository.format import HEX_ID, decode_json, encode_json, parse_id
from snappy.repository.store import File, FileType, Store

_LOG = log.get(__name__)
_PREFIX = re.compile(r"[0-9a-f]{1,64}\Z")
_READERS = 8
"""Snapshots that are read or removed at once: each is small, and takes as long as the way to the store and back."""
LATEST = "latest"


class Summary(msgspec.Struct, kw_only=True):
    """What a backup did, as restic 0.17 and newer keep it in the snapshot. Sizes are bytes."""

    backup_start: datetime
    backup_end: datetime
    files_new: int = 0
    files_changed: int = 0
    files_unmodified: int = 0
    dirs_new: int = 0
    dirs_changed: int = 0
    dirs_unmodified: int = 0
    data_blobs: int = 0
    tree_blobs: int = 0
    data_added: int = 0
    """Plain bytes of new blobs."""
    data_added_packed: int = 0
    """The same, compressed and sealed."""
    total_files_processed: int = 0
    total_bytes_processed: int = 0


class Snapshot(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The state of some paths at one time. ``tree`` and ``parent`` are ids in hexadecimal."""

    time: datetime
    parent: str | None = None
    tree: str
    paths: list[str] | None
    hostname: str = ""
    username: str = ""
    uid: int = 0
    gid: int = 0
    excludes: list[str] | None = None
    tags: list[str] | None = None
    original: str | None = None
    program_version: str = ""
    summary: Summary | None = None
    id: str = ""
    """The name of its file, filled in when it is loaded or saved; not part of the file."""

    @property
    def tree_id(self) -> bytes:
        """The root tree's id as 32 bytes. Raises :class:`Damaged`."""
        return parse_id(self.tree)


def save_snapshot(documents: Documents, snapshot: Snapshot) -> str:
    """Store the snapshot, set its ``id`` and return it. All that it refers to must be stored and indexed before."""
    snapshot.id = ""  # the default, so it is left out
    snapshot.id = documents.save(FileType.SNAPSHOT, encode_json(snapshot))
    return snapshot.id


def copy_snapshot(snapshot: Snapshot, source: Documents, target: Documents) -> str:
    """Store a copy in another repository, as :func:`save_snapshot` does, and return its id. All but the parent, which
    may not be there, stays to the letter: to restic a time has nanoseconds."""
    name = f"snapshot {snapshot.id[:8]}"
    try:
        fields = from_json(source.load(FileType.SNAPSHOT, snapshot.id), dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Damaged(f"{name} is not what it should be: {error}") from error
    fields.pop("parent", None)
    fields["original"] = msgspec.Raw(msgspec.json.encode(snapshot.original or snapshot.id))
    return target.save(FileType.SNAPSHOT, msgspec.json.encode(fields))


def load_snapshot(documents: Documents, name: str, size: int | None = None) -> Snapshot:
    """Read one snapshot. Raises :class:`Damaged`, and :class:`NotFound` when there is none of that name."""
    snapshot = decode_json(documents.load(FileType.SNAPSHOT, name, size), Snapshot, f"snapshot {name[:8]}")
    if snapshot.time.tzinfo is None:
        raise Damaged(f"snapshot {name[:8]} has a time without a zone")
    snapshot.id = name
    return snapshot


def list_snapshots(store: Store, documents: Documents, *, strict: bool = False) -> list[Snapshot]:
    """All snapshots, oldest first. A damaged one is logged and left out, or with ``strict`` raises Damaged."""

    def load(file: File) -> Snapshot | None:
        name, size = file
        try:
            return load_snapshot(documents, name, size)
        except NotFound:
            return None  # removed since it was listed
        except Damaged as error:
            if strict:
                raise
            _LOG.warning("snapshot skipped", snapshot=name, reason=error.message)
            return None

    with ThreadPoolExecutor(_READERS, thread_name_prefix="snapshot") as pool:
        found = [snapshot for snapshot in pool.map(load, store.list(FileType.SNAPSHOT)) if snapshot]
    return sorted(found, key=lambda snapshot: (snapshot.time, snapshot.id))


def remove_snapshots(store: Store, names: Iterable[str], *, going_on: Callable[[], None]) -> int:
    """Remove the snapshots of these ids, about in that order; how many were still there. ``going_on`` is asked before
    each, and raises what ends the work. Raises StorageError."""

    def remove(name: str) -> bool:
        going_on()
        try:
            store.remove(FileType.SNAPSHOT, name)
        except NotFound:
            return False  # an earlier attempt, or somebody else, was faster
        _LOG.info("snapshot removed", snapshot=name)
        return True

    pool = ThreadPoolExecutor(_READERS, thread_name_prefix="snapshot")
    try:
        return sum(pool.map(remove, names))
    finally:
        pool.shutdown(cancel_futures=True)


def find_snapshot(
    store: Store,
    documents: Documents,
    spec: str,
    *,
    hosts: Iterable[str] = (),
    tags: Iterable[str] = (),
    paths: Iterable[str] = (),
    before: datetime | None = None,
) -> Snapshot:
    """The snapshot of that id or first letters of one, or the latest that passes all filters.

    The filters (any of the hosts, all of the tags, all of the paths, not after) speak to ``latest`` alone.
    Raises :class:`SnapshotNotFound`, and :class:`Damaged` rather than take an older one for a damaged latest.
    """
    if spec != LATEST:
        return load_snapshot(documents, find_name(store, spec))
    matching = [
        snapshot
        for snapshot in list_snapshots(store, documents, strict=True)
        if matches(snapshot, hosts=hosts, tags=tags, paths=paths, before=before)
    ]
    if not matching:
        raise SnapshotNotFound("there is no snapshot yet, or none that passes the filters")
    return matching[-1]


def matches(
    snapshot: Snapshot,
    *,
    hosts: Iterable[str] = (),
    tags: Iterable[str] = (),
    paths: Iterable[str] = (),
    before: datetime | None = None,
) -> bool:
    """Whether the snapshot is of any of the hosts, has all the tags and all the paths, and is not younger."""
    wanted_hosts = set(hosts)
    return (
        (not wanted_hosts or snapshot.hostname in wanted_hosts)
        and set(tags) <= set(snapshot.tags or ())
        and set(paths) <= set(snapshot.paths or ())
        and (before is None or snapshot.time <= before)
    )


def find_name(store: Store, prefix: str) -> str:
    """The id of the one snapshot whose id begins so, whether or not it can be read. Raises
    :class:`SnapshotNotFound`."""
    if not _PREFIX.match(prefix):
        raise SnapshotNotFound(f"{prefix!r} is neither an id, nor the first letters of one, nor `latest`")
    if HEX_ID.match(prefix):
        names = [prefix] if store.exists(FileType.SNAPSHOT, prefix) else []
    else:
        names = [name for name, _ in store.list(FileType.SNAPSHOT) if name.startswith(prefix)]
    if not names:
        raise SnapshotNotFound(f"no snapshot has an id that starts with {prefix!r}")
    if len(names) > 1:
        raise SnapshotNotFound(
            f"{prefix!r} is ambiguous: {len(names)} snapshots have ids that start so", hint="give more of its letters"
        )
    return names[0]
