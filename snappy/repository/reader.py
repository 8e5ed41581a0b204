"""The way of a blob out of the store: found in the index, read, authenticated, decompressed, hashed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from snappy import heap
from snappy.errors import Corrupt, Damaged, NotFound
from snappy.repository.compression import decompress
from snappy.repository.crypto import SealingKey
from snappy.repository.format import MIB, BlobId, BlobLocation, BlobType, PackId, blob_id
from snappy.repository.index import MemoryIndex
from snappy.repository.pack import PackedBlob, Unsealed, end_size, open_end, read_end, read_header
from snappy.repository.store import FileType, Store

LARGEST_GAP = MIB // 4
"""Bytes between two wanted blobs that are rather read and dropped than asked for around."""

LARGEST_READ = heap.FOR_PACKS - MIB // 16
"""Neighbouring blobs are read together up to that many bytes, unless its user says otherwise. More would come in memory
that is new each time, in a process that keeps no more."""

OPENED_BLOBS = 256
OPENED_BYTES = MIB
"""So many small blobs are opened before the first is handed on. A processor that opens for a while, and then does for
a while what is to be done with them, finds the code of either at hand: a third less time for a restore of files of
1 KiB."""

_UNREADABLE = (Damaged, NotFound, Corrupt)

Opened = TypeVar("Opened")
Open = Callable[[BlobLocation, bytes | memoryview], Opened]
"""What a blob that was read is to its reader. Raises :class:`Damaged`."""


class Renewal(Protocol):
    """Looks again for what is known. See :class:`snappy.repository.index_loader.IndexLoader`."""

    version: int

    def renew(self, version: int) -> bool: ...


class BlobReader:
    """Loads blobs; any thread may call any method. Where a blob is whole nowhere, ``renewal`` may know of a copy that
    came since the index was loaded."""

    def __init__(
        self,
        store: Store,
        key: SealingKey,
        index: MemoryIndex,
        *,
        renewal: Renewal | None = None,
        largest_read: int = LARGEST_READ,
    ) -> None:
        self._store = store
        self._key = key
        self._index = index
        self._renewal = renewal
        self._largest_read = largest_read

    def load(self, kind: BlobType, blob: BlobId) -> bytes:
        """The plain bytes of a blob, from the first copy that is whole.

        Raises :class:`Damaged` when no copy is, and :class:`snappy.errors.StorageError` when the store fails.
        """
        return self._load(kind, blob, self.open)

    def load_many(self, pack: PackId, wanted: Iterable[BlobLocation]) -> Iterator[tuple[BlobLocation, bytes]]:
        """The plain bytes of blobs of one pack, in few reads, by offset; one that is damaged here is looked for in
        other packs.

        After all that can be read were given, raises :class:`Damaged` for the first that cannot, with all such in
        ``details["blobs"]``.
        """
        return self._load_many(pack, wanted, self.open)

    def load_many_unsealed(
        self, pack: PackId, wanted: Iterable[BlobLocation]
    ) -> Iterator[tuple[BlobLocation, Unsealed]]:
        """The same, each blob still compressed as it lies there."""
        return self._load_many(pack, wanted, self._unseal)

    def _load(self, kind: BlobType, blob: BlobId, opened: Open[Opened]) -> Opened:
        version = self._renewal.version if self._renewal else 0
        try:
            return self._load_known(kind, blob, opened)
        except Damaged:
            if not self._renewal or not self._renewal.renew(version):
                raise
            return self._load_known(kind, blob, opened)

    def _load_known(self, kind: BlobType, blob: BlobId, opened: Open[Opened]) -> Opened:
        failure = Damaged(f"the {kind.value} blob {blob.hex()[:8]} is in no index")
        for location in self._index.locations(kind, blob):
            try:
                return opened(location, self.read(location.pack, location.offset, location.length))
            except _UNREADABLE as error:
                failure = _damaged(location, error)
        raise failure

    def _load_many(
        self, pack: PackId, wanted: Iterable[BlobLocation], opened: Open[Opened]
    ) -> Iterator[tuple[BlobLocation, Opened]]:
        missing: list[BlobLocation] = []
        places = {(blob.offset, blob.id): blob for blob in wanted}
        for run in self._runs([places[place] for place in sorted(places)]):
            yield from self._load_run(pack, run, missing, opened)
        if missing:
            raise Damaged(
                f"{len(missing)} blobs of pack {pack.hex()[:8]} are damaged, the first is {missing[0].id.hex()[:8]}",
                blobs=missing,
            )

    def load_at(self, location: BlobLocation) -> bytes:
        """The plain bytes of the one copy that lies there, listed or not. Raises :class:`Damaged` and StorageError."""
        return self.open(location, self.read(location.pack, location.offset, location.length))

    def open(self, blob: BlobLocation | PackedBlob, sealed: bytes | memoryview) -> bytes:
        """The plain bytes of a blob that was read. Raises :class:`Damaged`."""
        return _proven(blob, self._key.open(sealed))

    def _unseal(self, blob: BlobLocation, sealed: bytes | memoryview) -> Unsealed:
        data = self._key.open(sealed)
        _proven(blob, data)
        return Unsealed(blob.id, data, blob.uncompressed_length)

    def read_pack_header(self, pack: PackId, size: int) -> list[PackedBlob]:
        """The blobs that a pack of ``size`` bytes says it holds. Raises :class:`Damaged` and StorageError."""
        return read_header(self._key, size, lambda offset, length: self.read(pack, offset, length))

    def read_pack_end(self, pack: PackId, size: int, header_size: int) -> tuple[bytes, bytes]:
        """The bytes at the end of a pack, behind its blobs, and the plain header in them, which probably has
        ``header_size`` bytes. Raises :class:`Damaged` and StorageError."""
        end = read_end(size, lambda offset, length: self.read(pack, offset, length), end_size(header_size))
        return end, open_end(self._key, end)

    def _runs(self, blobs: list[BlobLocation]) -> Iterator[list[BlobLocation]]:
        run: list[BlobLocation] = []
        for blob in blobs:
            if run and not self._joins(run, blob):
                yield run
                run = []
            run.append(blob)
        if run:
            yield run

    def _joins(self, run: list[BlobLocation], blob: BlobLocation) -> bool:
        gap = blob.offset - (run[-1].offset + run[-1].length)
        return gap <= LARGEST_GAP and blob.offset + blob.length - run[0].offset <= self._largest_read

    def _load_run(
        self, pack: PackId, run: list[BlobLocation], missing: list[BlobLocation], opened: Open[Opened]
    ) -> Iterator[tuple[BlobLocation, Opened]]:
        start = run[0].offset
        try:
            view = memoryview(self.read(pack, start, run[-1].offset + run[-1].length - start))
        except _UNREADABLE:
            view = memoryview(b"")
        for portion in _portions(run):
            found = [
                (blob, self._open_or_find(blob, view[blob.offset - start :][: blob.length], opened)) for blob in portion
            ]
            missing += [blob for blob, data in found if data is None]
            yield from [(blob, data) for blob, data in found if data is not None]

    def _open_or_find(self, blob: BlobLocation, sealed: memoryview, opened: Open[Opened]) -> Opened | None:
        try:
            return opened(blob, sealed)
        except Damaged:
            return self._load_elsewhere(blob, opened)

    def _load_elsewhere(self, blob: BlobLocation, opened: Open[Opened]) -> Opened | None:
        try:
            return self._load(blob.kind, blob.id, opened)
        except Damaged:
            return None

    def read(self, pack: PackId, offset: int, length: int) -> bytes:
        """Bytes of a pack as they lie there. Raises StorageError."""
        return self._store.load(FileType.PACK, pack.hex(), offset, length)


def _proven(blob: BlobLocation | PackedBlob, unsealed: bytes) -> bytes:
    """The plain bytes."""
    plain = decompress(unsealed, blob.uncompressed_length) if blob.uncompressed_length else unsealed
    if blob_id(plain) != blob.id:
        raise Damaged("its name is not its SHA-256")
    return plain


def _portions(run: list[BlobLocation]) -> Iterator[list[BlobLocation]]:
    portion: list[BlobLocation] = []
    size = 0
    for blob in run:
        portion.append(blob)
        size += blob.uncompressed_length or blob.length
        if size >= OPENED_BYTES or len(portion) >= OPENED_BLOBS:
            yield portion
            portion, size = [], 0
    yield portion


def _damaged(location: BlobLocation, error: Exception) -> Damaged:
    name, pack = location.id.hex()[:8], location.pack.hex()[:8]
    damaged = Damaged(f"the {location.kind.value} blob {name} in pack {pack} is damaged: {error}")
    damaged.__cause__ = error
    return damaged
