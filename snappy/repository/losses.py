"""What of a repository is lost, as far as it was needed: each blob by its id and the packs in which it should be."""

from __future__ import annotations

from collections.abc import Iterable

from snappy.errors import Corrupt, Damaged, NotFound
from snappy.repository.findings import Findings, Kind
from snappy.repository.format import BlobId, BlobLocation, BlobType
from snappy.repository.repo import Repository

_KINDS = {
    BlobType.DATA: (Kind.BLOB_MISSING, Kind.BLOB_DAMAGED),
    BlobType.TREE: (Kind.TREE_MISSING, Kind.TREE_DAMAGED),
}
"""By the kind of blob: what it is called where no index lists it, and where no copy is whole."""


class Losses:
    """Reads a repository, whose index must be loaded, as a :class:`snappy.repository.tree_reader.Library`, and notes
    among ``findings`` which trees were asked for and are lost, and which data blobs :meth:`why` was asked about. For
    one thread."""

    def __init__(self, repo: Repository) -> None:
        self._repo = repo
        self._known: dict[BlobId, str] = {}
        self.findings = Findings()

    def location(self, kind: BlobType, blob: BlobId) -> BlobLocation | None:
        return self._repo.location(kind, blob)

    def read_pack(self, pack: BlobId, offset: int, length: int) -> bytes:
        return self._repo.read_pack(pack, offset, length)

    def open_blob(self, blob: BlobLocation, sealed: memoryview) -> bytes:
        return self._repo.open_blob(blob, sealed)

    def load_blob(self, kind: BlobType, blob: BlobId, ahead: Iterable[BlobId] = ()) -> bytes:
        """As of the repository; the error names the blob and the packs in full."""
        try:
            return self._repo.load_blob(kind, blob)
        except (Damaged, NotFound, Corrupt) as error:
            raise Damaged(self._note(kind, blob, error)) from error

    def why(self, blob: BlobId) -> str:
        """Why a data blob cannot be read, or an empty text: it can. Raises StorageError."""
        if blob not in self._known:
            try:
                self._repo.load_blob(BlobType.DATA, blob)
                self._known[blob] = ""
            except (Damaged, NotFound, Corrupt) as error:
                self._known[blob] = self._note(BlobType.DATA, blob, error)
        return self._known[blob]

    def _note(self, kind: BlobType, blob: BlobId, error: Exception) -> str:
        packs = ", ".join(place.pack.hex() for place in self._repo.locations(kind, blob))
        missing, damaged = _KINDS[kind]
        reason = f"in pack {packs} cannot be read: {error.__cause__ or error}" if packs else "is in no index"
        self.findings.add(damaged if packs else missing, blob, f"the {kind.value} blob {reason}")
        return f"the {kind.value} blob {blob.hex()} {reason}"
