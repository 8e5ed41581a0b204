"""Saves each blob once: whether it is new, the packs it gets into, and the index files that list those."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

import msgspec

from snappy import heap
from snappy.repository.crypto import SealingKey
from snappy.repository.documents import Documents
from snappy.repository.format import BlobId, BlobType, Random, blob_id
from snappy.repository.index import BLOBS_IN_A_FILE, MemoryIndex, encode_index
from snappy.repository.pack import FinishedPack, Unsealed
from snappy.repository.pack_writer import NamedData, Options, PackWriter
from snappy.repository.store import FileType, Store, no_fence

_TOGETHER = 4096
"""Blobs of a stored pack that are looked at together: as objects all of them would take a good part of its memory."""


class SavedBlob(NamedTuple):
    """``new`` says that this call stored it; ``stored`` are its bytes in the pack then, else 0."""

    id: BlobId
    new: bool
    stored: int


class SavedBlobs(NamedTuple):
    """Blobs that this call stored: how many, their plain and sealed bytes."""

    new: int
    plain: int
    stored: int


class Stats(msgspec.Struct):
    """What was written so far."""

    blobs_new: int = 0
    blobs_known: int = 0
    bytes_new: int = 0
    """Plain bytes of new blobs."""
    bytes_sealed: int = 0
    """The same blobs, compressed and sealed."""
    bytes_stored: int = 0
    """Bytes of uploaded packs."""
    packs_written: int = 0
    indexes_written: int = 0


class BlobWriter:
    """Saves blobs; any thread may call any method. After the first failure every call raises that failure, and
    nothing is written any more.
    """

    def __init__(
        self,
        store: Store,
        key: SealingKey,
        index: MemoryIndex,
        documents: Documents,
        options: Options,
        *,
        random: Random = os.urandom,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._index = index
        self._documents = documents
        self._options = options
        self._clock = clock
        self._packs = PackWriter(store, key, options, self._uploaded, random=random)
        self._lock = threading.Lock()  # over the pending blobs, what is to be listed, and the statistics
        self._pending: dict[BlobType, set[BlobId]] = {kind: set() for kind in BlobType}
        self._index_lock = threading.Lock()  # held while an index file is written
        self._unlisted: list[FinishedPack] = []
        self._blobs_unlisted = 0
        self._apart: list[FinishedPack] = []
        self._listed_at = clock()
        self.stats = Stats()
        self.may_write: Callable[[], None] = no_fence
        """Called before anything is written; waits until something may be, or raises to prevent it."""

    def has(self, kind: BlobType, blob: BlobId) -> bool:
        """Whether the blob is stored, or on its way since this process began."""
        return blob in self._pending[kind] or self._index.has(kind, blob)

    def has_all(self, kind: BlobType, blobs: Collection[BlobId]) -> bool:
        """The same of all of them."""
        return self._index.has_all(kind, blobs) or all(self.has(kind, blob) for blob in blobs)

    def save(self, kind: BlobType, data: bytes, blob: BlobId | None = None) -> SavedBlob:
        """Store a blob unless it is there; blocks while too many packs are on their way."""
        name = blob or blob_id(data)
        saved = self.save_all(kind, [(name, data)])
        return SavedBlob(name, bool(saved.new), saved.stored)

    def save_all(self, kind: BlobType, blobs: Sequence[NamedData]) -> SavedBlobs:
        """Store blobs of some megabytes at most together, as :meth:`save` does each, for less."""
        self._packs.raise_failure()
        self.may_write()
        with self._lock:
            new = [one for one in blobs if self._claim(kind, one[0], len(one[1]))]
        sealed = self._packs.add_all(kind, new) if new else 0
        self._added(sealed)
        return SavedBlobs(len(new), sum(len(data) for _, data in new), sealed)

    def save_again(self, kind: BlobType, blobs: Sequence[NamedData]) -> None:
        """Store another copy of blobs, some megabytes at most together, that are stored somewhere; compressed."""
        self._packs.raise_failure()
        self.may_write()
        self._added(self._packs.add_all(kind, blobs, always_compress=True))

    def save_unsealed(self, kind: BlobType, blobs: Sequence[Unsealed]) -> None:
        """Store blobs of another repository, some megabytes at most together, unless they are there."""
        self._packs.raise_failure()
        self.may_write()
        with self._lock:
            new = [one for one in blobs if self._claim(kind, one.id, one.plain_length)]
        self._added(self._packs.add_unsealed(kind, new) if new else 0)

    def save_unsealed_again(self, kind: BlobType, blobs: Sequence[Unsealed]) -> None:
        """As :meth:`save_again`; what is compressed stays as it is."""
        self._packs.raise_failure()
        self.may_write()
        self._added(self._packs.add_unsealed(kind, blobs, always_compress=True))

    def _added(self, sealed: int) -> None:
        with self._lock:
            self.stats.bytes_sealed += sealed
        self.save_index_if_due()

    def claim(self, kind: BlobType, blobs: Iterable[tuple[BlobId, int]]) -> list[bool]:
        """Of each blob, given with its plain bytes, whether nobody stores it; who asks has to, then."""
        self.may_write()
        with self._lock:
            return [self._claim(kind, blob, size) for blob, size in blobs]

    def _claim(self, kind: BlobType, blob: BlobId, size: int) -> bool:
        if self.has(kind, blob):
            self.stats.blobs_known += 1
            return False
        self._pending[kind].add(blob)
        self.stats.blobs_new += 1
        self.stats.bytes_new += size
        return True

    def take_in(self, pack: FinishedPack) -> None:
        """Another process stored what it claimed, in this pack."""
        self._packs.raise_failure()
        self._uploaded(pack, False)
        self._added(pack.sealed)

    def leave(self, kind: BlobType) -> None:
        """Others store such blobs from now on: what is left is uploaded, and little memory kept."""
        self._packs.leave(kind)

    def save_apart(self, data: bytes) -> None:
        """Store a blob in a pack of its own, which is listed when all is; blocks while too many are on their way."""
        self._packs.raise_failure()
        self.may_write()
        self._packs.add_apart(data)

    def list_at_end(self, pack: FinishedPack) -> None:
        """List a blob that another set apart, in a pack of its own, together with ours."""
        with self._lock:
            self._apart.append(pack)

    def adopt(self, pack: FinishedPack) -> None:
        """Take in the blobs of a pack which no index file lists; the next one will."""
        self._learn(pack)

    def save_index_if_due(self) -> None:
        """List what was uploaded in an index file, if it is time; another thread that does so already suffices."""
        due = self._clock() - self._listed_at >= self._options.index_every
        if not (due or self._blobs_unlisted >= BLOBS_IN_A_FILE) or not self._unlisted:
            return
        if self._index_lock.acquire(blocking=False):
            try:
                with self._packs.all_or_nothing():
                    self._save_index()
            finally:
                self._index_lock.release()

    def flush(self) -> None:
        """Upload what is left and list it. On return all that was saved is durable and found by any reader."""
        self._packs.flush()
        with self._packs.all_or_nothing(), self._index_lock:
            self._save_whole_index()
        self._packs.raise_failure()  # another thread may have been listing, and failed

    def list_stored(self) -> None:
        """List what was uploaded, and write nothing else from now on: what is left undone is found again."""
        self._packs.close()
        with self._index_lock:
            self._save_whole_index()

    def close(self) -> None:
        """Drop what was not flushed and end the threads; may be called twice."""
        self._packs.close()

    def _uploaded(self, pack: FinishedPack, apart: bool) -> None:
        if apart:
            self.list_at_end(pack)
        else:
            self._learn(pack)
        with self._lock:
            self.stats.packs_written += 1
            self.stats.bytes_stored += pack.size

    def _learn(self, pack: FinishedPack) -> None:
        """Where blobs lie that are stored, and are to be listed."""
        blobs = pack.blobs()
        while some := list(islice(blobs, _TOGETHER)):
            self._index.add(some)
            with self._lock:
                self._pending[some[0].kind].difference_update([blob.id for blob in some])
        with self._lock:
            self._unlisted.append(pack)
            self._blobs_unlisted += pack.blob_count

    def _save_whole_index(self) -> None:
        with self._lock:
            self._unlisted += self._apart
            self._apart = []
        self._save_index()

    def _save_index(self) -> None:
        with self._lock:
            packs, self._unlisted, self._blobs_unlisted = self._unlisted, [], 0
            self._listed_at = self._clock()
        for listed in _in_files(packs):
            blobs = chain.from_iterable(pack.blobs() for pack in listed)
            self._documents.save(FileType.INDEX, encode_index(blobs))
            self.stats.indexes_written += 1
        heap.give_back()


def _in_files(packs: Iterable[FinishedPack]) -> Iterator[list[FinishedPack]]:
    """What each index file lists: no more blobs than it should, but a whole pack at least."""
    listed: list[FinishedPack] = []
    count = 0
    for pack in packs:
        if listed and count + pack.blob_count > BLOBS_IN_A_FILE:
            yield listed
            listed, count = [], 0
        listed.append(pack)
        count += pack.blob_count
    if listed:
        yield listed
