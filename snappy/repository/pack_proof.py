"""The proof of one pack: it is read whole, and its name, its header and every blob in it must be right."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from snappy import log
from snappy.errors import Corrupt, Damaged, NotFound
from snappy.repository.findings import Finding, Kind
from snappy.repository.format import MIB, PackId
from snappy.repository.index_checker import Listing
from snappy.repository.pack import PackedBlob, parse_header
from snappy.repository.progress import Cancelled
from snappy.repository.reader import BlobReader

PART = 10 * MIB
"""Bytes of a pack that a reader has in memory, unless a single blob is larger; so packs may be of any size, and the
usual ones come in two parts."""
_NAMED = 20
"""Damaged blobs of a pack that a finding names."""

_LOG = log.get(__name__)

DamagedBlob = tuple[PackedBlob, Damaged]


class CheckedPack(NamedTuple):
    """A pack to be read: ``size`` bytes; ``listing`` is what the index says, None where that cannot be right."""

    id: PackId
    size: int
    listing: Listing | None


class PackProof:
    """Proves packs, in any thread."""

    def __init__(self, reader: BlobReader, cancelled: Cancelled) -> None:
        self._reader, self._cancelled = reader, cancelled

    def findings(self, pack: CheckedPack) -> list[Finding]:
        """What is wrong with it, and still is when it is read again: bytes may be harmed on their way out of a storage
        that holds them whole. Raises StorageError, and what ``cancelled`` raises."""
        first = self._examine(pack)
        if not first:
            return []
        found = self._examine(pack)
        if not found:
            _LOG.warning("a pack was harmed on its way", pack=pack.id.hex(), reason=first[0].message)
        return found

    def _examine(self, pack: CheckedPack) -> list[Finding]:
        try:
            end, blobs, fault = self._end(pack)
            changed, damaged = self._read(pack, blobs, end)
        except NotFound as error:
            return [Finding(Kind.PACK_MISSING, pack.id.hex(), error.message)]
        except Corrupt as error:
            return [Finding(Kind.PACK_SIZE, pack.id.hex(), error.message)]
        if changed and pack.listing and pack.size != pack.listing.size:
            return [Finding(Kind.PACK_SIZE, pack.id.hex(), wrong_size(pack.size, pack.listing))]
        if changed:
            return [Finding(Kind.PACK_CHANGED, pack.id.hex(), fault.message if fault else _changed(damaged))]
        if fault:
            return [fault]
        place = f"in pack {pack.id.hex()}"
        return [Finding(Kind.BLOB_DAMAGED, blob.id.hex(), f"{place}: {error.message}") for blob, error in damaged]

    def _end(self, pack: CheckedPack) -> tuple[bytes, list[PackedBlob], Finding | None]:
        """The bytes behind the blobs, and the blobs that the header there lists; or none, and why."""
        expected = pack.listing.header_size if pack.listing else 0
        try:
            end, header = self._reader.read_pack_end(pack.id, pack.size, expected)
            blobs = parse_header(header, pack.size - len(end))
        except Damaged as error:
            return b"", [], Finding(Kind.PACK_HEADER, pack.id.hex(), error.message)
        if pack.listing and hashlib.sha256(header).digest() != pack.listing.header:
            return b"", [], Finding(Kind.PACK_LISTING, pack.id.hex(), "its header and the index list different blobs")
        return end, blobs, None

    def _read(self, pack: CheckedPack, blobs: list[PackedBlob], behind: bytes) -> tuple[bool, list[DamagedBlob]]:
        """Whether the pack is not what its name says, and which blobs are damaged."""
        digest = hashlib.sha256()
        damaged: list[DamagedBlob] = []
        for start, end, within in _parts(blobs, pack.size - len(behind)):
            self._cancelled()
            data = self._reader.read(pack.id, start, end - start)
            digest.update(data)
            damaged += self._damaged(within, start, memoryview(data))
        digest.update(behind)
        return digest.digest() != pack.id, damaged

    def _damaged(self, blobs: Iterable[PackedBlob], start: int, data: memoryview) -> Iterator[DamagedBlob]:
        for blob in blobs:
            offset = blob.offset - start
            try:
                self._reader.open(blob, data[offset : offset + blob.length])
            except Damaged as error:
                yield blob, error


def _parts(blobs: list[PackedBlob], size: int) -> Iterator[tuple[int, int, list[PackedBlob]]]:
    """From where to where to read the first ``size`` bytes of a pack, in order, and the blobs that lie there whole."""
    start = end = 0
    within: list[PackedBlob] = []
    for blob in blobs:
        if within and blob.offset + blob.length > start + PART:
            yield start, end, within
            start, within = end, []
        end = blob.offset + blob.length
        within.append(blob)
    if within:
        yield start, end, within
    for rest in range(end, size, PART):
        yield rest, min(rest + PART, size), []


def wrong_size(size: int, listing: Listing) -> str:
    """What there is to say of a pack that has another size than the index expects."""
    return f"it has {size} bytes; by the index it should have {listing.size}"


def _changed(damaged: list[DamagedBlob]) -> str:
    if not damaged:
        return "its SHA-256 is not its name, though all that is in it is whole"
    named = ", ".join(blob.id.hex()[:8] for blob, _ in damaged[:_NAMED])
    more = ", ..." if len(damaged) > _NAMED else ""
    return f"its SHA-256 is not its name; damaged blobs in it: {len(damaged)} ({named}{more})"
