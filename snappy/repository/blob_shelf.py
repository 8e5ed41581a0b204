"""Plain data blobs, fetched when they are asked for; those of last use are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future

from snappy.errors import Damaged
from snappy.repository.browsable import Browsable
from snappy.repository.format import MIB, BlobId, BlobLocation, PackId

KEPT_BYTES = 64 * MIB


class BlobShelf:
    """Any thread may call; a blob that two ask for at the same time is fetched once."""

    def __init__(self, library: Browsable, kept_bytes: int = KEPT_BYTES) -> None:
        self._library, self._room = library, kept_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[BlobId, bytes] = OrderedDict()
        self._coming: dict[BlobId, Future[bytes]] = {}

    def take(self, places: Sequence[BlobLocation]) -> dict[BlobId, bytes]:
        """The plain bytes of all of them. Raises :class:`Damaged` and StorageError."""
        found, ours, others = self._claim(places)
        try:
            for pack, wanted in _by_pack(ours).items():
                for place, data in self._library.load_blobs(pack, wanted):
                    found[place.id] = data
                    self._arrived(place.id, data)
        except BaseException as error:
            self._give_up(ours, error)
            raise
        self._give_up(ours, Damaged("a blob did not come"))
        again = [place for place, coming in others if coming.exception()]  # what failed may have been beside it
        found |= {place.id: coming.result() for place, coming in others if not coming.exception()}
        return found | self.take(again) if again else found

    def _claim(
        self, places: Iterable[BlobLocation]
    ) -> tuple[dict[BlobId, bytes], list[BlobLocation], list[tuple[BlobLocation, Future[bytes]]]]:
        """What is here, what this thread is to fetch, and what another one fetches."""
        found: dict[BlobId, bytes] = {}
        ours: list[BlobLocation] = []
        others: list[tuple[BlobLocation, Future[bytes]]] = []
        with self._lock:
            for place in {place.id: place for place in places}.values():
                if place.id in self._kept:
                    self._kept.move_to_end(place.id)
                    found[place.id] = self._kept[place.id]
                elif place.id in self._coming:
                    others.append((place, self._coming[place.id]))
                else:
                    self._coming[place.id] = Future()
                    ours.append(place)
        return found, ours, others

    def _arrived(self, blob: BlobId, data: bytes) -> None:
        with self._lock:
            self._kept[blob] = data
            self._room -= len(data)
            while self._room < 0 and len(self._kept) > 1:
                self._room += len(self._kept.popitem(last=False)[1])
            self._coming.pop(blob).set_result(data)

    def _give_up(self, places: Iterable[BlobLocation], error: BaseException) -> None:
        with self._lock:
            for place in places:
                if coming := self._coming.pop(place.id, None):
                    coming.set_exception(error)


def _by_pack(places: Iterable[BlobLocation]) -> dict[PackId, list[BlobLocation]]:
    packs: dict[PackId, list[BlobLocation]] = {}
    for place in places:
        packs.setdefault(place.pack, []).append(place)
    return packs
