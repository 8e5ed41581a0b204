"""Proves a restore: what lies in the folder now is read, and compared with what the snapshot says of it.

The blobs' ids are hashes of what was read when it was backed up. So the content of a file is right if its bytes, as
they come from the disk, have the SHA-256 that its blobs are called by; neither the restore nor its result is believed.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from typing import NamedTuple

from snappy.repository.entries import Identity, Node, Problem
from snappy.repository.findings import Finding
from snappy.repository.format import MIB, BlobId, BlobType
from snappy.repository.losses import Losses
from snappy.repository.lstat import TYPES
from snappy.repository.paths import ROOT, shown
from snappy.repository.progress import Cancelled, Problems, Progress, never
from snappy.repository.restored_file import plain_length
from snappy.repository.restorer import RestoreResult
from snappy.repository.snapshot_walk import Kind, Selection, SnapshotWalk, Step
from snappy.repository.snapshots import Snapshot
from snappy.sources.local_metadata import Owner
from snappy.sources.local_node import READ_FLAGS
from snappy.sources.local_sink import HANDLE_FLAGS
from snappy.sources.open_folders import Folder, OpenFolders

READ_TOGETHER = MIB
ASKED_ABOUT = 16
"""Blobs of one file that are looked for in the repository, where they are not in the file."""
GRAINS = (1, 100, 1_000, 1_000_000, 1_000_000_000, 2_000_000_000)
"""Nanoseconds: how exactly file systems keep times."""
NOT_MADE = frozenset({"dev", "chardev", "socket"})
"""Types of objects that a drill does not restore."""


@dataclass(frozen=True)
class Proof:
    """What is as it was backed up, and what is not: ``faults`` and ``findings`` are the first thousand of their
    numbers."""

    files: int
    directories: int
    bytes: int
    faults: list[Problem]
    fault_count: int
    findings: list[Finding]
    finding_count: int


@dataclass
class _FirstName:
    """The one of a file's names that came first, what is wrong with it, and how many names were met."""

    path: bytes
    identity: Identity
    fault: str
    met: int = 1


class Prover:
    """Compares the folder ``place`` with snapshots; for one proof. ``done`` is what its restore says: where that could
    not keep something of an object's metadata, there is no fault in that. ``owner``: who was to own the objects."""

    def __init__(
        self,
        losses: Losses,
        place: bytes,
        done: RestoreResult,
        *,
        owner: Owner | None,
        progress: Progress,
        cancelled: Cancelled = never,
    ) -> None:
        self._losses, self._owner, self._progress, self._cancelled = losses, owner, progress, cancelled
        self._folders = OpenFolders(place)
        self._excused = {problem.path for problem in done.warnings}
        self._excuses_all = done.warnings_total > len(done.warnings)
        self._reasons = {problem.path: problem.message for problem in done.errors}
        self._problems = Problems()
        self._first_names: dict[tuple[int, int, int], _FirstName] = {}
        """Of files with several names, by device, inode and content when they were backed up."""
        self._buffer = memoryview(bytearray(READ_TOGETHER))
        self._files = self._directories = self._bytes = 0

    def prove(self, snapshot: Snapshot, selection: Selection) -> Proof:
        """Raises StorageError, what ``cancelled`` raises, and :class:`snappy.errors.Damaged` for a lost root."""
        walk = SnapshotWalk(self._losses, selection, self._problems, self._cancelled)
        try:
            for step in walk.steps(snapshot):
                self._cancelled()
                if step.kind is not Kind.LEAVE and step.node.type not in NOT_MADE:
                    self._look(step)
        finally:
            self._folders.close()
        return self._proof()

    def _proof(self) -> Proof:
        findings = self._losses.findings
        return Proof(
            files=self._files,
            directories=self._directories,
            bytes=self._bytes,
            faults=self._problems.kept,
            fault_count=self._problems.total,
            findings=findings.kept(),
            finding_count=findings.damage,
        )

    def _look(self, step: Step) -> None:
        """One fault an object is enough."""
        try:
            fault = self._fault(step)
        except FileNotFoundError:
            fault = self._why_missing(step)
        except OSError as error:
            fault = f"it cannot be read back: {error.strerror}"
        if step.node.type == "file":
            self._progress.add(files=1)
        if fault:
            self._problems.add(step.path, fault)
        elif step.node.type == "file":
            self._files += 1
            self._bytes += step.node.size
        elif step.node.type == "dir":
            self._directories += 1

    def _fault(self, step: Step) -> str:
        """Raises ``OSError``."""
        node, place = step.node, self._place(step.path)
        found = place.look()
        kind = TYPES.get(stat.S_IFMT(found.st_mode), "irregular")
        if kind != node.type:
            return f"it is of the type {kind}, not {node.type}"
        fault = ""
        if kind == "file":
            fault = self._fault_of_file(step, place, found)
        elif kind == "symlink":
            fault = _fault_of_link(node, place)
        if not (fault or self._excuses_all or step.path in self._excused):
            fault = _fault_of_metadata(node, place, found, self._owner)
        if kind == "dir":
            place.let_in(found)
        return fault

    def _place(self, path: bytes) -> _Place:
        above, _, name = path.rpartition(b"/")
        return _Place(self._folders.get(above or ROOT), name)

    def _why_missing(self, step: Step) -> str:
        """By the repository, or else by what the restore says."""
        asked = [self._losses.why(blob) for blob in (step.node.content or ())[:ASKED_ABOUT]]
        reason = next(filter(None, asked), "") or self._reasons.get(step.path, "")
        return f"it is not there: {reason}" if reason else "it is not there"

    # ---- files

    def _fault_of_file(self, step: Step, place: _Place, found: os.stat_result) -> str:
        """Of several names of one file the first is read."""
        node, identity = step.node, (found.st_dev, found.st_ino)
        if node.links <= 1:
            return self._fault_of_content(node, place, found)
        names = (node.device_id, node.inode, hash(tuple(node.content or ())))
        if names not in self._first_names:
            fault = self._fault_of_content(node, place, found)
            self._first_names[names] = _FirstName(step.path, identity, fault)
            return fault
        first = self._first_names[names]
        first.met += 1
        if first.met == node.links:
            del self._first_names[names]
        if first.identity != identity:
            return f"it is a file of its own, not another name of {shown(first.path)}"
        self._progress.add(size=found.st_size)
        return first.fault

    def _fault_of_content(self, node: Node, place: _Place, found: os.stat_result) -> str:
        handle = place.open(found)
        try:
            return self._fault_of_bytes(node, handle, found.st_size)
        finally:
            os.close(handle)

    def _fault_of_bytes(self, node: Node, handle: int, size: int) -> str:
        """Where bytes are not those of their blob, it may be the repository that lost them: the first such blobs are
        looked for, and all that are lost noted, but only one is told of."""
        offset, told, asked = 0, "", 0
        for blob in node.content or ():
            self._cancelled()
            location = self._losses.location(BlobType.DATA, blob)
            if location is None:
                return self._losses.why(blob) or "an index file that came meanwhile lists its blobs"
            length = plain_length(location)
            if asked < ASKED_ABOUT and self._hash(handle, offset, length) != blob:
                asked += 1
                lost = self._losses.why(blob)  # always: it notes what is lost
                told = told or lost or _differs(blob, offset, length)
            offset += length
            self._progress.add(size=length)
        return told or ("" if offset == size else f"it has {size} bytes, not {offset}")

    def _hash(self, handle: int, offset: int, length: int) -> BlobId:
        """Of what lies there now."""
        found, end = hashlib.sha256(), offset + length
        while offset < end and (size := os.preadv(handle, [self._buffer[: end - offset]], offset)):
            found.update(self._buffer[:size])
            offset += size
        return found.digest()


def _differs(blob: BlobId, offset: int, length: int) -> str:
    return f"its {length} bytes from {offset} on are not those of the blob {blob.hex()}, which the repository has"


class _Place(NamedTuple):
    """An object in the folder."""

    above: Folder
    name: bytes

    def look(self) -> os.stat_result:
        return os.stat(self.name, dir_fd=self.above.handle, follow_symlinks=False)

    def open(self, found: os.stat_result) -> int:
        """A file that its mode forbids to read, and that is ours, is made readable: it goes anyway."""
        try:
            return os.open(self.name, READ_FLAGS, dir_fd=self.above.handle)
        except PermissionError:
            os.chmod(self.name, stat.S_IMODE(found.st_mode) | stat.S_IRUSR, dir_fd=self.above.handle)
            return os.open(self.name, READ_FLAGS, dir_fd=self.above.handle)

    def let_in(self, found: os.stat_result) -> None:
        """The same for a directory."""
        if found.st_mode & stat.S_IRWXU != stat.S_IRWXU and os.geteuid() != 0:
            os.chmod(self.name, stat.S_IMODE(found.st_mode) | stat.S_IRWXU, dir_fd=self.above.handle)

    def xattr(self, name: bytes) -> bytes | None:
        """None where there is no such one."""
        handle = os.open(self.name, HANDLE_FLAGS, dir_fd=self.above.handle)
        try:
            return os.getxattr(f"/proc/self/fd/{handle}", name)
        except OSError:
            return None
        finally:
            os.close(handle)


def _fault_of_link(node: Node, place: _Place) -> str:
    target = os.readlink(place.name, dir_fd=place.above.handle)
    return "" if target == node.link_target else f"it leads to {shown(target)}, not to {shown(node.link_target)}"


def _fault_of_metadata(node: Node, place: _Place, found: os.stat_result, owner: Owner | None) -> str:
    mode, owners = stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid)
    if node.type != "symlink" and mode != node.mode:
        return f"its mode is {mode:o}, not {node.mode:o}"
    if not any(found.st_mtime_ns == node.mtime_ns // grain * grain for grain in GRAINS):
        return f"it was changed at {found.st_mtime_ns} ns, not at {node.mtime_ns} ns"
    if owner and owners != owner(node):
        return "its owner is {}:{}, not {}:{}".format(*owners, *owner(node))
    wrong = [name for name, value in node.xattrs.items() if place.xattr(name) != value]
    return f"its extended attribute {shown(wrong[0])} is another" if wrong else ""
