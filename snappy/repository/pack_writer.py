"""The way of a new blob into a pack, and of the pack into the store: compressed, sealed, opened again, uploaded."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from snappy.errors import Damaged
from snappy.repository.compression import DEFAULT_LEVEL, Compressor, decompress
from snappy.repository.crypto import SealingKey
from snappy.repository.format import MIB, BlobId, BlobType, Random, blob_id
from snappy.repository.pack import MOST_BLOBS, FinishedPack, PackBuilder, PackMemory, Unsealed
from snappy.repository.store import FileType, Store
from snappy.repository.uploader import IN_FLIGHT, PackUploader

OPEN_PACKS = {BlobType.DATA: 2, BlobType.TREE: 1}
"""How many packs of a kind are filled at a time. Blobs go to one of them at random, so that the size of a pack
tells an onlooker less about where files were cut; trees are not cut."""

MOST_PACKS = 4
"""How many packs are filled or travel, of all kinds together. While there is no memory for one more, a blob goes to the
pack of its kind that there is; if there is none, it waits until one has arrived."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a repository is written. It can be read with any options."""

    pack_size: int = 16 * MIB
    """Bytes at which a pack is full."""

    compression: int | None = DEFAULT_LEVEL
    """The level of zstd, 1 to 22; None leaves blobs as they are (documents are compressed always)."""

    index_every: float = 20.0
    """Seconds after which new packs are listed in an index file, so that an interrupted backup finds them again."""


DEFAULT_OPTIONS = Options()

NamedData = tuple[BlobId, bytes]
"""A blob's id and its plain bytes."""

Uploaded = Callable[[FinishedPack, bool], None]
"""Takes a pack that the store has, and whether it was set apart."""


class _Sealed(NamedTuple):
    """A blob as a pack takes it; ``uncompressed`` is 0 where it is not compressed."""

    blob: BlobId
    sealed: bytes
    uncompressed: int


class PackWriter:
    """Stores blobs that are known to be new; any thread may call any method. ``uploaded`` is called from a thread of
    its own for each pack. After the first failure every call raises that failure, and nothing is written any more.
    """

    def __init__(
        self,
        store: Store,
        key: SealingKey,
        options: Options,
        uploaded: Uploaded,
        *,
        in_flight: int = IN_FLIGHT,
        most: int = MOST_PACKS,
        random: Random = os.urandom,
    ) -> None:
        self._store, self._key, self._options, self._uploaded, self._random = store, key, options, uploaded, random
        self._compressor = None if options.compression is None else Compressor(options.compression)
        self._memory, self._most = PackMemory(options.pack_size), most
        self._uploader = PackUploader(self._upload, in_flight)
        self._lock = threading.Lock()  # over the packs being filled
        self._filling: dict[BlobType, list[PackBuilder]] = {kind: [] for kind in BlobType}
        self.wait, self.fail = self._uploader.wait, self._uploader.fail
        self.raise_failure, self.close = self._uploader.raise_failure, self._uploader.close

    def add(self, kind: BlobType, data: bytes, blob: BlobId) -> int:
        """Store the blob in a pack with others, some time soon; its bytes in there. Blocks while uploads lag."""
        return self.add_all(kind, [(blob, data)])

    def add_all(self, kind: BlobType, blobs: Sequence[NamedData], *, always_compress: bool = False) -> int:
        """Store the blobs, some megabytes at most, as :meth:`add` does each, for less. What does not get smaller stays
        uncompressed, but for trees: a prune would take those for an old program's."""
        always = always_compress or kind is BlobType.TREE
        return self._add(kind, (self._compressed(blob, data, always) for blob, data in blobs))

    def add_unsealed(self, kind: BlobType, blobs: Sequence[Unsealed], *, always_compress: bool = False) -> int:
        """The same of blobs out of packs: those that are compressed stay as they are."""
        always = always_compress or kind is BlobType.TREE
        return self._add(kind, (self._as_written_here(blob, always) for blob in blobs))

    def _add(self, kind: BlobType, blobs: Iterable[Unsealed]) -> int:
        with self.all_or_nothing():
            sealed = self._seal(list(blobs))
            with self._lock:
                for one in sealed:
                    if pack := self._place(kind, one):
                        self._uploader.put(pack)  # until it travels no other is begun, for the memory's sake
        return sum(len(one.sealed) for one in sealed)

    def add_apart(self, data: bytes) -> None:
        """Store the blob in a pack of its own. Blocks while uploads lag."""
        with self.all_or_nothing():
            [sealed] = self._seal([self._compressed(blob_id(data), data, False)])
            builder = PackBuilder(self._memory.take(len(sealed.sealed)), apart=True)
            builder.add(BlobType.DATA, *sealed)
            self._uploader.put(builder)

    def flush(self) -> None:
        """Return when all packs are uploaded, full or not."""
        with self.all_or_nothing():
            for kind in BlobType:
                self._send_off(kind)
            self.wait()

    def leave(self, kind: BlobType) -> None:
        """Have the packs of this kind uploaded, full or not, and keep little memory: hardly more is to come."""
        with self.all_or_nothing():
            self._memory.spare()
            self._send_off(kind)

    def _send_off(self, kind: BlobType) -> None:
        with self._lock:
            builders, self._filling[kind] = self._filling[kind], []
            for builder in _merged(builders, self._options.pack_size):
                self._uploader.put(builder)

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """An error inside is the failure after which nothing is written."""
        try:
            yield
        except BaseException as error:
            self.fail(error)
            raise

    def _seal(self, blobs: list[Unsealed]) -> list[_Sealed]:
        """Each step for all of them: what it needs stays in the processor's caches."""
        sealed = self._key.seal_all([one.data for one in blobs], self._random)
        done = [_Sealed(one.id, data, one.uncompressed_length) for one, data in zip(blobs, sealed, strict=True)]
        blobs.clear()  # what verifying needs is as large
        for one in done:
            self._verify(one)
        return done

    def _verify(self, one: _Sealed) -> None:
        opened = self._key.open(one.sealed)
        if blob_id(decompress(opened, one.uncompressed) if one.uncompressed else opened) != one.blob:
            raise Damaged(
                f"the blob {one.blob.hex()[:8]} changed while it was sealed",
                hint="the memory or processor of this machine may be faulty",
            )

    def _compressed(self, blob: BlobId, data: bytes, always: bool) -> Unsealed:
        if self._compressor is not None:
            compressed = self._compressor.compress(data)
            if (always and data) or len(compressed) < len(data):  # a plain length of 0 says that it is not
                return Unsealed(blob, compressed, len(data))
        return Unsealed(blob, data, 0)

    def _as_written_here(self, blob: Unsealed, always: bool) -> Unsealed:
        if not blob.uncompressed_length:
            return self._compressed(blob.id, blob.data, always)
        if self._compressor is None:
            return Unsealed(blob.id, decompress(blob.data, blob.uncompressed_length), 0)
        return blob

    def _place(self, kind: BlobType, one: _Sealed) -> PackBuilder | None:
        """Put it into a pack, and return that if it is full."""
        builder = self._pick(kind, one.sealed)
        builder.add(kind, *one)
        if builder.size < self._options.pack_size and len(builder) < MOST_BLOBS:
            return None
        if builder in self._filling[kind]:
            self._filling[kind].remove(builder)
        return builder

    def _pick(self, kind: BlobType, sealed: bytes) -> PackBuilder:
        """One at random, if there are several; what is sealed begins with a number that is."""
        if len(sealed) >= self._options.pack_size:
            return PackBuilder(self._memory.take(len(sealed)))
        filling = self._filling[kind]
        chosen = sealed[0] % OPEN_PACKS[kind]
        if chosen >= len(filling) and self._may_begin(filling):
            filling.append(PackBuilder(self._memory.take()))
        return filling[min(chosen, len(filling) - 1)]

    def _may_begin(self, filling: list[PackBuilder]) -> bool:
        """Whether there is memory for one more; it is waited for where none of the kind is being filled."""
        may_travel = self._most - 1 - sum(map(len, self._filling.values()))
        if filling:
            return self._uploader.on_their_way <= may_travel
        self._uploader.wait(max(0, may_travel))
        return True

    def _upload(self, builder: PackBuilder) -> None:
        pack = builder.finish(self._key)
        self._store.save(FileType.PACK, pack.id.hex(), pack.data)
        self._memory.give_back(builder.memory)
        self._uploaded(pack._replace(data=b""), builder.apart)


def _merged(packs: list[PackBuilder], size: int) -> list[PackBuilder]:
    """The packs, those joined that fit into one: a small backup is one pack, from which no blob's size is read."""
    merged: list[PackBuilder] = []
    for pack in packs:
        fits = merged and len(merged[-1]) + len(pack) <= MOST_BLOBS
        if fits and merged[-1].size + pack.size < size:
            merged[-1].absorb(pack)
        else:
            merged.append(pack)
    return merged
