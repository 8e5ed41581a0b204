"""Files on their way back that are brought together: which blobs belong where in them, and what is done afterwards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from snappy.repository.entries import Identity
from snappy.repository.format import BlobId, BlobLocation, PackId
from snappy.repository.restored_file import Piece, RestoredFile, plain_length

LARGE_FILES = 100
"""Files of several blobs stay open until all have come."""

Plan = tuple[RestoredFile, list[Piece]]


class Places:
    """The blobs of some files, each once, by the packs that they lie in, and where each belongs."""

    def __init__(self, plans: Iterable[Plan]) -> None:
        self.places: defaultdict[BlobId, list[tuple[RestoredFile, int]]] = defaultdict(list)
        self.packs: defaultdict[PackId, list[BlobLocation]] = defaultdict(list)
        for file, pieces in plans:
            for offset, location in pieces:
                places = self.places[location.id]
                if not places:
                    self.packs[location.pack].append(location)
                places.append((file, offset))


class Batch:
    """What is planned. A file that is not large is in one batch with all its pieces."""

    def __init__(self) -> None:
        self.plans: dict[RestoredFile, list[Piece]] = {}
        self.afterwards: list[Callable[[], object]] = []
        self.futures: list[Future[None]] = []
        self.errand = 0
        """Its number, if a worker does it."""
        self.sent: list[tuple[Plan, Identity | None]] = []
        """What the worker was sent; with the identity of a file that this process has open."""
        self.bytes = self.blobs = self.large = 0
        self._known = set[BlobId]()

    def add(self, file: RestoredFile, piece: Piece) -> None:
        """Plan one piece; what comes for several places counts once."""
        self.plans.setdefault(file, []).append(piece)
        self.blobs += 1
        if piece.blob.id not in self._known:
            self._known.add(piece.blob.id)
            self.bytes += plain_length(piece.blob)

    def is_full(self, size: int, blobs: int) -> bool:
        """Whether so many bytes or blobs are planned, or too many files would be open."""
        return self.bytes >= size or self.blobs >= blobs or self.large >= LARGE_FILES

    def abandon(self) -> None:
        """Let go of what is still open."""
        for file in self.plans:
            file.abandon()
