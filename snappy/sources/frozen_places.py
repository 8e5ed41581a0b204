"""Freezes local paths: read-only snapshots of the btrfs subvolumes that they lie in, for as long as a backup reads.

Snapshots lie in the tops of their subvolumes, as ``.snappy-snapshot-<service>-<token>``. Whoever reads one has a lock
on it, which dies with the process: so the next backup knows those that were left.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from snappy import log
from snappy.errors import SourceDenied, SourceError
from snappy.repository.paths import ROOT, join, shown
from snappy.sources import btrfs
from snappy.sources.local_tree import FOLDER_FLAGS, OUR_SNAPSHOT, Moved
from snappy.sources.site import NOWHERE, Site

FOLDER = "files"
"""Below the service's work folder."""
MOUNTS = "/proc/self/mountinfo"
INSTEAD = "with `snapshot` as auto it is read as it stands"

LeftOut = Callable[[bytes], bool]
"""Whether nothing is read of a directory below the paths."""

_log = log.get(__name__)


class Mount(NamedTuple):
    place: bytes
    kind: str


@contextmanager
def frozen(paths: Sequence[bytes], site: Site, *, required: bool, left_out: LeftOut) -> Iterator[Moved]:
    """Where the paths are read from meanwhile, as far as they can be frozen. What is mounted below them, or is another
    subvolume, is frozen too, each by itself. Raises :class:`SourceError` where all of it is ``required``; blocks."""
    if site is NOWHERE or not _may(required):
        yield {}
        return
    mounts = [mount for mount in _mounts() if _is_below(mount.place, paths)]
    with ExitStack() as snapshots:
        moved: Moved = {}
        for top in _planned(paths, mounts, required, left_out):
            moved[top] = snapshots.enter_context(_snapshot_or_itself(top, site, required))
        if moved:
            _log.info("frozen by snapshots", subvolumes=[shown(top) for top, real in moved.items() if top != real])
            moved = {mount.place: mount.place for mount in mounts} | moved
        yield moved


def _planned(paths: Sequence[bytes], mounts: Sequence[Mount], required: bool, left_out: LeftOut) -> list[bytes]:
    """Nothing unless it is known where all subvolumes are: where another begins, a snapshot is empty."""
    try:
        return list(_tops(paths, [mount for mount in mounts if not left_out(mount.place)], required, left_out))
    except OSError as error:
        if required:
            raise SourceError(f"its subvolumes are not known: {error.strerror}", hint=INSTEAD) from error
        _log.warning("nothing is frozen, since the subvolumes are not known", reason=error.strerror)
        return []


def _may(required: bool) -> bool:
    """Anybody may make a snapshot of what is theirs; to remove it again takes root."""
    if os.geteuid() != 0 and required:
        raise SourceDenied("only root can remove a snapshot again", hint=INSTEAD)
    return os.geteuid() == 0


def _tops(paths: Sequence[bytes], mounts: Sequence[Mount], required: bool, left_out: LeftOut) -> Iterator[bytes]:
    """The tops of all subvolumes that hold something of it, each before those within it, none twice."""
    known: set[bytes] = set()
    for place in [*paths, *(mount.place for mount in mounts if required or mount.kind == "btrfs")]:
        top = _top_above(place)
        if top is None and required:
            raise SourceError(f"{shown(place)} is not on btrfs, so that there is no snapshot of it", hint=INSTEAD)
        left = [] if top is None else [top]
        while left:
            here = left.pop()
            if here not in known:
                known.add(here)
                yield here
                left += [inner for inner in _nested(here) if _is_below(inner, paths) and not left_out(inner)]


def _top_above(path: bytes) -> bytes | None:
    """The top of the subvolume that the path lies in, if one can be reached by going up in the same mount."""
    found = os.lstat(path)
    while True:
        if found.st_ino == btrfs.TOP_INODE and _is_top(path):
            return path
        above = os.path.dirname(path)
        found_above = os.lstat(above)
        if above == path or found_above.st_dev != found.st_dev:
            return None
        path, found = above, found_above


def _is_top(path: bytes) -> bool:
    with suppress(NotADirectoryError), _opened(path) as folder:
        return btrfs.is_top(folder)
    return False


def _nested(top: bytes) -> Iterator[bytes]:
    """The subvolumes within that one; of snapshots, ours or not, only those that others may want."""
    with _opened(top) as folder:
        for path in btrfs.nested(folder):
            inner = os.path.join(top, path)
            if not os.path.basename(inner).startswith(OUR_SNAPSHOT):
                with suppress(OSError):  # something is mounted above it, or it went away
                    if _is_top(inner):
                        yield inner


@contextmanager
def _snapshot_or_itself(top: bytes, site: Site, required: bool) -> Iterator[bytes]:
    with ExitStack() as snapshot:
        try:
            place = snapshot.enter_context(_snapshot(top, site))
        except OSError as error:
            if required:
                message = f"no snapshot of {shown(top)} can be made: {error.strerror}"
                raise SourceError(message, hint=INSTEAD) from error
            _log.warning("no snapshot can be made; it is read as it stands", top=shown(top), reason=error.strerror)
            place = top
        yield place


@contextmanager
def _snapshot(top: bytes, site: Site) -> Iterator[bytes]:
    with _opened(top) as above, ExitStack() as reading:
        with site.alone(FOLDER):
            _remove_left(above, site)
            name = OUR_SNAPSHOT + os.fsencode(f"{site.name}-{secrets.token_hex(4)}")
            btrfs.snapshot(above, name)
            reading.callback(_remove, above, name)
            lock = reading.enter_context(_opened(name, above))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield join(top, name)


def _remove_left(above: int, site: Site) -> None:
    ours = re.compile(re.escape(OUR_SNAPSHOT) + os.fsencode(rf"{re.escape(site.name)}-[0-9a-f]{{8}}"))
    for name in filter(ours.fullmatch, map(os.fsencode, os.listdir(above))):
        with suppress(BlockingIOError), _opened(name, above) as folder:  # another job reads it
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _log.info("removing the snapshot that a dead process left", name=shown(name))
            _remove(above, name)


def _remove(above: int, name: bytes) -> None:
    try:
        btrfs.destroy(above, name)
    except OSError as error:
        _log.error("a snapshot was not removed; the next backup tries again", name=shown(name), reason=error.strerror)


@contextmanager
def _opened(path: bytes, above: int | None = None) -> Iterator[int]:
    folder = os.open(path, FOLDER_FLAGS, dir_fd=above)
    try:
        yield folder
    finally:
        os.close(folder)


def _is_below(path: bytes, paths: Sequence[bytes]) -> bool:
    return any(path.startswith(above if above == ROOT else above + b"/") for above in paths if above != path)


def _mounts() -> list[Mount]:
    """proc_pid_mountinfo(5): those who lie above others come first."""
    try:
        with open(MOUNTS, "rb") as file:
            return [_mount(line) for line in file]
    except FileNotFoundError:
        return []


def _mount(line: bytes) -> Mount:
    place, _, kind = line.partition(b" - ")
    path = re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), place.split()[4])
    return Mount(path, os.fsdecode(kind.split()[0]))
