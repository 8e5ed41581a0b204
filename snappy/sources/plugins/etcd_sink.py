"""Restores of an etcd cluster: a data folder that a member starts on, or keys in a cluster that runs."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import msgspec
from msgspec import Meta

from snappy import log
from snappy.errors import (
    AttemptOver,
    BadOptions,
    Damaged,
    NoSpace,
    ProgramFailed,
    SnappyError,
    SourceMissing,
)
from snappy.repository.entries import Node
from snappy.repository.format import MIB
from snappy.sources.data_folders import NewFolder, of_system
from snappy.sources.made_up import recognized
from snappy.sources.plugins.etcd_cluster import PLUGIN, Cluster, Member, in_base64
from snappy.sources.plugins.etcd_file import Key, SnapshotFile
from snappy.sources.plugins.etcd_marks import BATCH_KEYS, OURS, Mark, Operation, around
from snappy.sources.programs import Program
from snappy.sources.site import Site

FOLDER = "/etcd/{}"
LAYOUT = re.compile(r"/etcd/[^/]+/(about\.json|snapshot\.db)")
ABOUT = "about.json"
SNAPSHOT = "snapshot.db"
DATA = "data"
DIGEST = 32
"""Bytes of the SHA-256 at the end of a snapshot, of all before it."""
FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
BATCH_BYTES = MIB // 2
"""A cluster takes 1.5 MiB at a time, unless it is told otherwise."""

_log = log.get(__name__)


class EtcdRestore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Into which cluster, or which data folder."""

    cluster: Annotated[str, Meta(description="one that runs, by its name in the configuration")] = "default"
    prefix: Annotated[str, Meta(description="the keys that begin so; empty: all")] = ""
    into: Annotated[str | None, Meta(description="what they begin with instead; none: they keep their names")] = None
    overwrite: Annotated[bool, Meta(description="first remove the keys that begin so in the cluster")] = False
    to: Annotated[str, Meta(description="instead: the absolute path of a data folder, empty or not there")] = ""
    name: Annotated[str, Meta(description="of that folder's member")] = "default"
    initial_cluster: Annotated[
        str, Meta(description="all members of the new cluster, as etcd's --initial-cluster; empty: this one alone")
    ] = ""
    initial_cluster_token: Annotated[str, Meta(description="as etcd's; each new cluster needs one of its own")] = (
        "etcd-cluster"
    )
    peer_urls: Annotated[str, Meta(description="as etcd's --initial-advertise-peer-urls")] = "http://localhost:2380"

    @property
    def goal(self) -> str:
        """What the keys begin with that are restored."""
        return self.prefix if self.into is None else self.into

    @property
    def claim(self) -> str:
        """How rules name the keys of the cluster that it may change."""
        return f"{PLUGIN}://{self.cluster}" + (f"/{quote(self.goal, safe='')}" if self.goal else "")


class _FileSink(ABC):
    """See :class:`snappy.repository.entries.StreamSink`. The snapshot goes into a file, and is whole."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / SNAPSHOT
        self._is_whole = False

    def receive(self, path: bytes, node: Node, content: Iterator[bytes]) -> list[str]:
        file = recognized(path, LAYOUT, PLUGIN)[1]
        if file != ABOUT and self._is_whole:
            raise BadOptions(f"there is a second {file} in the snapshot", hint="choose one with --include")
        if file == ABOUT:
            for _ in content:
                pass
            return []
        try:
            self._write(content)
        except OSError as error:
            raise of_system(error) from error
        self._is_whole = True
        return []

    def _write(self, content: Iterator[bytes]) -> None:
        digest, end = hashlib.sha256(), b""
        with os.fdopen(os.open(self._path, FLAGS, 0o600), "wb") as file:
            for piece in content:
                file.write(piece)
                known = end + piece
                digest.update(memoryview(known)[:-DIGEST])
                end = known[-DIGEST:]
        if digest.digest() != end:
            raise Damaged("the snapshot does not end with its own SHA-256")

    def finish(self) -> list[str]:
        if not self._is_whole:
            raise SourceMissing(f"there is no {SNAPSHOT} in what was chosen of the backup")
        self._restore()
        return []

    @abstractmethod
    def _restore(self) -> None:
        """Make something of the file."""


class FolderSink(_FileSink):
    """Makes a data folder, by etcd's own program. ``to`` is absolute, its symlinks resolved."""

    def __init__(self, cluster: Cluster, options: EtcdRestore, to: bytes) -> None:
        self._options, self._to = options, to
        self._program = cluster.program()
        self._running: Program | None = None
        self._is_over = False
        self._folder = NewFolder(to)
        super().__init__(Path(os.fsdecode(self._folder.path)))

    def _restore(self) -> None:
        made = self._path.with_name(DATA)
        self._running = Program(
            [self._program, *self._words(made)], environment={"ETCDCTL_API": "3"}, stdout=subprocess.DEVNULL
        )
        if self._is_over:
            raise AttemptOver
        with _explained():
            self._running.wait()
        self._folder.put(os.fsencode(made), *self._owner())

    def _words(self, made: Path) -> list[str]:
        given = self._options
        return [
            "snapshot",
            "restore",
            str(self._path),
            f"--data-dir={made}",
            f"--name={given.name}",
            f"--initial-cluster={given.initial_cluster or f'{given.name}={given.peer_urls}'}",
            f"--initial-cluster-token={given.initial_cluster_token}",
            f"--initial-advertise-peer-urls={given.peer_urls}",
        ]

    def _owner(self) -> tuple[int, int]:
        """To whom the place belongs already, or the folder above it."""
        found = os.stat(self._to if os.path.isdir(self._to) else os.path.dirname(self._to))
        return found.st_uid, found.st_gid

    def interrupt(self) -> None:
        """End the program."""
        self._is_over = True
        if self._running:
            self._running.end()

    def close(self) -> None:
        if self._running:
            self._running.kill()
        self._folder.close()


class KeySink(_FileSink):
    """Puts keys into a cluster that runs, when all of the snapshot is there."""

    def __init__(self, cluster: Cluster, options: EtcdRestore, site: Site) -> None:
        self._cluster, self._options = cluster, options
        self._goal = options.goal.encode()
        self._is_over = self._is_begun = False
        self._member: Member | None = None
        self._leases: dict[int, str] = {}
        """Of the cluster, by those of the snapshot."""
        if self._goal.startswith(OURS):
            raise BadOptions(f"keys that begin with {OURS.decode()} are the plug-in's own")
        self._mark = Mark(site.name, self._goal)
        with ExitStack() as held:
            super().__init__(held.enter_context(site.work_folder(PLUGIN)))
            member = cluster.connect()
            self._mark.tidy(member)
            if not self._mark.others(member):
                self._check_free(member)
            self._held = held.pop_all()

    def _restore(self) -> None:
        self._member = member = self._cluster.connect()
        with SnapshotFile(self._path) as snapshot:
            self._is_begun = True
            self._mark.make(member, self._check)
            self._check_free(member)
            if self._options.overwrite:
                self._mark.empty(member)
            keys = (key for key in snapshot.keys(self._options.prefix.encode()) if not key.name.startswith(OURS))
            for batch in _batches(keys):
                self._check()
                self._grant(member, snapshot.leases.keys() & {key.lease for key in batch}, snapshot)
                self._mark.change(member, [self._put(key) for key in batch])
        self._mark.remove(member)
        self._is_begun = False

    def _check(self) -> None:
        if self._is_over:
            raise AttemptOver

    def _grant(self, member: Member, leases: set[int], snapshot: SnapshotFile) -> None:
        for number in leases - self._leases.keys():
            granted = member.ask("lease/grant", TTL=str(max(1, snapshot.leases[number])))
            self._leases[number] = granted["ID"]

    def _put(self, key: Key) -> Operation:
        """A key whose lease is not in the snapshot has none, as etcd itself takes it."""
        name = self._goal + key.name[len(self._options.prefix.encode()) :]
        lease = self._leases.get(key.lease, "0")
        return {"request_put": {"key": in_base64(name), "value": in_base64(key.value), "lease": lease}}

    def interrupt(self) -> None:
        """Put no more."""
        self._is_over = True
        if self._member:
            self._member.interrupt()

    def close(self) -> None:
        with self._held:
            if self._is_begun:
                self._give_up()

    def _give_up(self) -> None:
        try:
            member = self._cluster.connect()
            self._mark.give_up(member)
            for lease in self._leases.values():
                member.ask("lease/revoke", ID=lease)
        except SnappyError as error:
            _log.warning("unfinished keys stay until the next restore", reason=error.message)

    def _check_free(self, member: Member) -> None:
        if self._options.overwrite:
            return
        for begin, end in around(self._goal):
            if member.ask("kv/range", key=in_base64(begin), range_end=in_base64(end), limit="1").get("kvs"):
                raise BadOptions(
                    f"the cluster {self._cluster.name} has keys that begin with {self._options.goal!r}",
                    hint="restore them into another prefix, into: other/, or with overwrite",
                )


@contextmanager
def _explained() -> Iterator[None]:
    """Where the program had no room, that is said."""
    try:
        yield
    except ProgramFailed as error:
        if "no space left" in error.message:
            raise NoSpace("no room to restore to", hint="free space where the data folder is to be") from error
        raise


def _batches(keys: Iterator[Key]) -> Iterator[list[Key]]:
    """Of few keys and few bytes each, or of a key alone."""
    batch: list[Key] = []
    total = 0
    for key in keys:
        size = len(key.name) + len(key.value)
        if batch and (len(batch) == BATCH_KEYS or total + size > BATCH_BYTES):
            yield batch
            batch, total = [], 0
        batch.append(key)
        total += size
    if batch:
        yield batch
