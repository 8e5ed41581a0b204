"""The ``etcd`` plug-in: all keys of an etcd cluster as of one revision, as a member's file.

The snapshot holds ``/etcd/<cluster>/about.json`` and ``snapshot.db`` beside it, which etcd's own programs restore.
"""

from __future__ import annotations

import hashlib
import io
import os
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Annotated, Any, ClassVar, NamedTuple, cast

import msgspec
from msgspec import Meta

from snappy.errors import SourceUnavailable
from snappy.repository.entries import Entry
from snappy.sources.databases import ServerSource
from snappy.sources.made_up import about, buffered, folders_above, small, stream
from snappy.sources.places import folder_claim
from snappy.sources.plugins.etcd_cluster import PLUGIN, Answer, Cluster, EtcdSettings, Member, missing
from snappy.sources.plugins.etcd_sink import DIGEST, FOLDER, EtcdRestore, FolderSink, KeySink
from snappy.sources.site import Site

CONSISTENCY = "all keys as of one revision, which lies between the two of `revisions`"


class EtcdOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which cluster is backed up."""

    cluster: Annotated[str, Meta(description="which cluster, by its name in the source service's configuration")] = (
        "default"
    )


class Frozen(NamedTuple):
    """A member's file that is being sent, as of the moment that its first part came."""

    answer: Answer
    first: dict[str, Any]
    about: bytes
    size: int


class EtcdSource(ServerSource[Frozen]):
    """Backs up a cluster while it is written to."""

    name: ClassVar[str] = PLUGIN
    Options: ClassVar[type[msgspec.Struct]] = EtcdOptions
    RestoreOptions: ClassVar[type[msgspec.Struct]] = EtcdRestore
    Settings: ClassVar[type[msgspec.Struct]] = EtcdSettings

    def __init__(self, options: EtcdOptions, site: Site) -> None:
        super().__init__()
        self._cluster = Cluster(site, options.cluster)
        self._waiting: list[Member | Answer] = []

    def claims(self) -> list[str]:
        """The cluster."""
        return [f"{PLUGIN}://{self._cluster.name}"]

    @classmethod
    def missing(cls) -> list[str]:
        """What this machine lacks for it, a sentence each."""
        return missing()

    def _freeze(self, held: ExitStack) -> Frozen:
        """The member begins to send its file. Two revisions enclose that of the file: its own is known to nobody before
        it is there."""
        member = self._cluster.member()
        self._waiting.append(member)
        self._running.check()
        member.log_in()
        before = member.ask("maintenance/status")
        answer = held.enter_context(closing(member.stream("maintenance/snapshot")))
        self._waiting.append(answer)
        self._running.check()
        first = answer.part()
        if first is None:
            raise SourceUnavailable("the server sends no snapshot")
        after = member.ask("maintenance/status")
        said = about(
            before["version"],
            cluster_id=before["header"]["cluster_id"],
            consistency=CONSISTENCY,
            revisions=[int(status["header"]["revision"]) for status in (before, after)],
        )
        return Frozen(answer, first, said, int(before.get("dbSize", 0)))

    def sizes(self, frozen: Frozen) -> Iterator[int]:
        """That of the member's file."""
        yield frozen.size

    def export(self, frozen: Frozen) -> Iterator[Entry]:
        """What the cluster is, and what it has."""
        folder = FOLDER.format(self._cluster.name)
        first = f"{folder}/about.json".encode()
        yield from folders_above(first)
        yield small(first, frozen.about)
        yield stream(f"{folder}/snapshot.db".encode(), lambda: buffered(_Snapshot(frozen)))

    def interrupt(self) -> None:
        """Hang up."""
        super().interrupt()
        for waiting in self._waiting:
            waiting.interrupt()

    @classmethod
    def restore_claims(cls, options: EtcdRestore, site: Site) -> list[str]:
        """The folder, or the cluster with the prefix that keys get."""
        if not options.to:
            return [options.claim]
        return [folder_claim(options.to)]

    @classmethod
    def import_(cls, options: EtcdRestore, claims: Sequence[str], site: Site) -> FolderSink | KeySink:
        """What makes a data folder, or puts keys into a cluster that runs."""
        cluster = Cluster(site, options.cluster)
        return FolderSink(cluster, options, os.fsencode(claims[0])) if options.to else KeySink(cluster, options, site)


class _Snapshot(io.RawIOBase):
    """The bytes of the file. At its end stands their SHA-256: without it they are not all."""

    def __init__(self, frozen: Frozen) -> None:
        self._answer, self._part = frozen.answer, cast("dict[str, Any] | None", frozen.first)
        self._ready = memoryview(b"")
        self._end = b""
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and self._part is not None:
            self._take(b64decode(self._part.get("blob", "")))
            self._part = self._answer.part()
            if self._part is None:
                self._check()
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def _take(self, data: bytes) -> None:
        self._ready = memoryview(data)
        known = self._end + data
        self._digest.update(known[:-DIGEST])
        self._end = known[-DIGEST:]

    def _check(self) -> None:
        if self._digest.digest() != self._end:
            raise SourceUnavailable("the snapshot ended before it was whole", hint="the server's log says why")
