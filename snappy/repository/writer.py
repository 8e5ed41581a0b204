"""The way of a new blob into the store: compressed, sealed, opened again, packed, uploaded, then indexed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from snappy.errors import Damaged
from snappy.repository.compression import DEFAULT_LEVEL, Compressor, decompress
from snappy.repository.crypto import SealingKey
from snappy.repository.documents import Documents
from snappy.repository.format import MIB, BlobId, BlobLocation, BlobType, Random, blob_id
from snappy.repository.index import BLOBS_IN_A_FILE, MemoryIndex, encode_index
from snappy.repository.pack import MOST_BLOBS, PackBuilder
from snappy.repository.store import FileType, Store
from snappy.repository.uploader import PackUploader

OPEN_PACKS = 2
"""How many packs of a kind are filled at a time. Blobs go to one of them at random, so that the size of a pack
tells an onlooker less about where files were cut."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a repository is written. It can be read with any options."""

    pack_size: int = 16 * MIB
    """Bytes at which a pack is full."""

    compression: int | None = DEFAULT_LEVEL
    """The level of zstd, 1 to 22; None leaves blobs as they are (documents are compressed always)."""

    index_every: float = 20.0
    """Seconds after which new packs are listed in an index file, so that an interrupted backup finds them again."""


DEFAULT_OPTIONS = Options()


class SavedBlob(NamedTuple):
    """``new`` says that this call stored it; ``stored`` are its bytes in the pack then, else 0."""

    id: BlobId
    new: bool
    stored: int


class Stats(msgspec.Struct):
    """What this process has written so far."""

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
        self._store = store
        self._key = key
        self._index = index
        self._documents = documents
        self._options = options
        self._random = random
        self._clock = clock
        self._compressor = None if options.compression is None else Compressor(options.compression)
        self._uploader = PackUploader(self._upload)
        self._lock = threading.Lock()  # over the packs being filled, the pending blobs and the statistics
        self._filling: dict[BlobType, list[PackBuilder]] = {kind: [] for kind in BlobType}
        self._pending: set[tuple[BlobType, BlobId]] = set()
        self._index_lock = threading.Lock()  # held while an index file is written
        self._unlisted: list[BlobLocation] = []
        self._apart: list[BlobLocation] = []
        self._listed_at = clock()
        self.stats = Stats()

    def has(self, kind: BlobType, blob: BlobId) -> bool:
        """Whether the blob is stored, or on its way since this process began."""
        return (kind, blob) in self._pending or self._index.has(kind, blob)

    def save(self, kind: BlobType, data: bytes, blob: BlobId | None = None) -> SavedBlob:
        """Store a blob unless it is there; blocks while too many packs are on their way."""
        self._uploader.raise_failure()
        name = blob or blob_id(data)
        if not self._claim(kind, name):
            return SavedBlob(name, False, 0)
        try:
            sealed = self._store_new(kind, data, name)
        except BaseException as error:
            self._uploader.fail(error)
            raise
        self.save_index_if_due()
        return SavedBlob(name, True, sealed)

    def save_apart(self, data: bytes) -> None:
        """Store a blob in a pack of its own, which is listed when all is; blocks while too many are on their way."""
        self._uploader.raise_failure()
        with self._all_or_nothing():
            blob = blob_id(data)
            sealed, uncompressed = self._seal(data, blob)
            builder = PackBuilder(apart=True)
            builder.add(BlobType.DATA, blob, sealed, uncompressed)
            self._uploader.put(builder)

    def list_at_end(self, blob: BlobLocation) -> None:
        """List a blob that another set apart together with ours."""
        with self._lock:
            self._apart.append(blob)

    def adopt(self, blobs: list[BlobLocation]) -> None:
        """Take in blobs that lie in a pack which no index file lists; the next one will."""
        self._index.add(blobs)
        with self._lock:
            self._unlisted.extend(blobs)

    def save_index_if_due(self) -> None:
        """List what was uploaded in an index file, if it is time; another thread that does so already suffices."""
        due = self._clock() - self._listed_at >= self._options.index_every
        if not (due or len(self._unlisted) >= BLOBS_IN_A_FILE) or not self._unlisted:
            return
        if self._index_lock.acquire(blocking=False):
            try:
                with self._all_or_nothing():
                    self._save_index()
            finally:
                self._index_lock.release()

    def flush(self) -> None:
        """Upload what is left and list it. On return all that was saved is durable and found by any reader."""
        with self._lock:
            builders = [pack for packs in self._filling.values() for pack in _merged(packs, self._options.pack_size)]
            self._filling = {kind: [] for kind in BlobType}
        with self._all_or_nothing():
            for builder in builders:
                self._uploader.put(builder)
            self._uploader.wait()
            with self._index_lock:
                self._save_whole_index()
        self._uploader.raise_failure()  # another thread may have been listing, and failed

    def list_stored(self) -> None:
        """List what was uploaded, and write nothing else from now on: what is left undone is found again."""
        self._uploader.close()
        with self._index_lock:
            self._save_whole_index()

    def close(self) -> None:
        """Drop what was not flushed and end the threads; may be called twice."""
        self._uploader.close()

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._uploader.fail(error)
            raise

    def _claim(self, kind: BlobType, blob: BlobId) -> bool:
        with self._lock:
            if self.has(kind, blob):
                self.stats.blobs_known += 1
                return False
            self._pending.add((kind, blob))
            return True

    def _store_new(self, kind: BlobType, data: bytes, blob: BlobId) -> int:
        sealed, uncompressed = self._seal(data, blob)
        with self._lock:
            self.stats.blobs_new += 1
            self.stats.bytes_new += len(data)
            self.stats.bytes_sealed += len(sealed)
            full = self._place(kind, blob, sealed, uncompressed)
        if full is not None:
            self._uploader.put(full)
        return len(sealed)

    def _seal(self, data: bytes, blob: BlobId) -> tuple[bytes, int]:
        plain, uncompressed = self._compress(data)
        sealed = self._key.seal(plain, self._random)
        opened = self._key.open(sealed)
        if blob_id(decompress(opened, uncompressed) if uncompressed else opened) != blob:
            raise Damaged(
                f"the blob {blob.hex()[:8]} changed while it was sealed",
                hint="the memory or processor of this machine may be faulty",
            )
        return sealed, uncompressed

    def _compress(self, data: bytes) -> tuple[bytes, int]:
        if self._compressor is not None:
            compressed = self._compressor.compress(data)
            if len(compressed) < len(data):
                return compressed, len(data)
        return data, 0

    def _place(self, kind: BlobType, blob: BlobId, sealed: bytes, uncompressed: int) -> PackBuilder | None:
        builder = self._pick(kind, len(sealed))
        builder.add(kind, blob, sealed, uncompressed)
        if builder.size < self._options.pack_size and len(builder) < MOST_BLOBS:
            return None
        if builder in self._filling[kind]:
            self._filling[kind].remove(builder)
        return builder

    def _pick(self, kind: BlobType, size: int) -> PackBuilder:
        if size >= self._options.pack_size:
            return PackBuilder()
        filling = self._filling[kind]
        chosen = self._random(1)[0] % OPEN_PACKS
        if chosen >= len(filling):
            filling.append(PackBuilder())
        return filling[min(chosen, len(filling) - 1)]

    def _upload(self, builder: PackBuilder) -> None:
        pack = builder.finish(self._key)
        self._store.save(FileType.PACK, pack.id.hex(), pack.data)
        if not builder.apart:
            self._index.add(pack.blobs)
        with self._lock:
            (self._apart if builder.apart else self._unlisted).extend(pack.blobs)
            self._pending.difference_update((blob.kind, blob.id) for blob in pack.blobs)
            self.stats.packs_written += 1
            self.stats.bytes_stored += len(pack.data)

    def _save_whole_index(self) -> None:
        with self._lock:
            self._unlisted += self._apart
            self._apart = []
        self._save_index()

    def _save_index(self) -> None:
        with self._lock:
            blobs, self._unlisted = self._unlisted, []
            self._listed_at = self._clock()
        for start in range(0, len(blobs), BLOBS_IN_A_FILE):
            self._documents.save(FileType.INDEX, encode_index(blobs[start : start + BLOBS_IN_A_FILE]))
            self.stats.indexes_written += 1


def _merged(packs: list[PackBuilder], size: int) -> list[PackBuilder]:
    """The packs, those joined that fit into one: a small backup is one pack, from which no blob's size is read."""
    merged: list[PackBuilder] = []
    for pack in packs:
        if merged and merged[-1].size + pack.size < size:
            merged[-1].absorb(pack)
        else:
            merged.append(pack)
    return merged
