"""The folders above snapshots in a mount, as restic has them: by id, by time, by host and by tag."""

from __future__ import annotations

from collections.abc import Iterable

from snappy.repository.snapshots import LATEST, Snapshot

SHORT_ID = 8

Folder = dict[str, "Folder | Snapshot | str"]
"""By name: another folder, a snapshot, or where a link leads."""


def layout(snapshots: Iterable[Snapshot]) -> Folder:
    """``snapshots``: oldest first."""
    ids: Folder = {}
    times: Folder = {}
    hosts: Folder = {}
    tags: Folder = {}
    for snapshot in snapshots:
        ids[snapshot.id[:SHORT_ID]] = snapshot
        _add(times, snapshot)
        _add(_below(hosts, snapshot.hostname), snapshot)
        for tag in snapshot.tags or ():
            _add(_below(tags, tag), snapshot)
    return {"ids": ids, "snapshots": times, "hosts": hosts, "tags": tags}


def _below(folder: Folder, name: str) -> Folder:
    name = name.replace("/", "_").replace("\0", "_")
    found = folder.setdefault(f"_{name}" if name in ("", ".", "..") else name, {})
    assert isinstance(found, dict)
    return found


def _add(folder: Folder, snapshot: Snapshot) -> None:
    """By its time; of several of one second the later have a number behind it."""
    time = snapshot.time.isoformat(timespec="seconds").replace("+00:00", "Z")
    name, number = time, 0
    while name in folder:
        number += 1
        name = f"{time}-{number}"
    folder[name] = snapshot
    folder[LATEST] = name
