"""A worker process of a backup: reads files, cuts, hashes, seals and packs them, and uploads the packs by itself.

It knows the key and one store, and nothing of the repository but what it is told: for each *round*, some megabytes of
chunks, it asks which blobs are new. While it waits for the answer it reads the next round.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import BinaryIO

from snappy import heap
from snappy.errors import Interrupted, SnappyError
from snappy.repository import makers
from snappy.repository.blocks import blocks
from snappy.repository.bunch import BunchReader
from snappy.repository.chunker import SMALLEST, Chunker, name_of
from snappy.repository.contents import passed_over, unreadable
from snappy.repository.crypto import SealingKey
from snappy.repository.entries import Content
from snappy.repository.format import MIB, BlobType
from snappy.repository.link import (
    DONE,
    LOST,
    Batch,
    BunchRead,
    Claimed,
    FileOrder,
    Flush,
    Notice,
    Packed,
    Part,
    Reached,
    Round,
    Setup,
    Stop,
    ToWorker,
    WorkerLink,
)
from snappy.repository.pack import FinishedPack
from snappy.repository.pack_writer import NamedData, Options, PackWriter
from snappy.repository.store import Store
from snappy.repository.worker_process import listen

BYTES_IN_ROUND = MIB
BYTES_TOGETHER = MIB
"""Small chunks are sealed by so many."""
ROUNDS_AHEAD = 1
SEALERS = 1
"""Threads that seal chunks of large files, of which nobody else may have any."""
CHUNKS_IN_FLIGHT = 2
PACKS_IN_FLIGHT = 1
MOST_PACKS = 2


class _Reading:
    """A round that is being read; ``chunks`` are those of its parts and then of its bunches, in their
    order."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.bunches: list[BunchRead] = []
        self.chunks: list[NamedData] = []
        self.size = 0

    def begin(self, number: int, skipped: bool) -> Part:
        part = Part(number, b"", [], skipped)
        self.parts.append(part)
        return part

    def add(self, part: Part, chunk: bytes) -> None:
        blob = name_of(chunk)
        part.blobs += blob
        part.sizes.append(len(chunk))
        self.chunks.append((blob, chunk))
        self.size += len(chunk)

    def add_bunch(self, bunch: BunchReader) -> None:
        self.bunches.append(bunch.result)
        self.chunks += bunch.chunks
        self.size += sum(bunch.result.sizes)


class Worker:
    """Does what ``link`` says until it is told to end."""

    def __init__(self, link: WorkerLink, setup: Setup, store: Store) -> None:
        self._link, self._store = link, store
        self._chunker = Chunker(setup.chunker_seed)
        options = Options(pack_size=setup.pack_size, compression=setup.compression)
        key = SealingKey.from_json(setup.key)
        self._packs = PackWriter(store, key, options, self._uploaded, in_flight=PACKS_IN_FLIGHT, most=MOST_PACKS)
        self._orders: SimpleQueue[Batch | Flush | Stop] = SimpleQueue()
        self._answers: SimpleQueue[bytes] = SimpleQueue()
        self._waiting: deque[_Reading] = deque()
        self._sealers = ThreadPoolExecutor(SEALERS, thread_name_prefix="seal")
        self._sealing: deque[Future[int]] = deque()

    def run(self) -> None:
        """Until all is done, or given up. Raises what fails; nothing is on its way then."""
        listen(self._link, self._heed)
        try:
            while (batch := self._next()) is not None:
                for reading in self._read(batch):
                    self._link.send(Round(reading.parts, reading.bunches))
                    self._waiting.append(reading)
                    self._settle(ROUNDS_AHEAD)
        finally:
            self._sealers.shutdown(cancel_futures=True)
            self._packs.close()

    def _heed(self, message: ToWorker) -> None:
        if isinstance(message, Claimed):
            self._answers.put(message.new)
        elif isinstance(message, Notice):
            self._store.told(message.body)
        elif isinstance(message, (Batch, Flush, Stop)):
            if isinstance(message, Stop):
                self._packs.fail(Interrupted("the backup is given up"))
                self._answers.put(b"")
            self._orders.put(message)

    def _next(self) -> Batch | None:
        """The next batch; ``None`` when the last one is done and uploaded."""
        if self._orders.empty():
            self._settle(0)
        order = self._orders.get()
        if isinstance(order, Batch):
            return order
        if isinstance(order, Stop):
            raise Interrupted("the backup is given up")
        self._settle(0)
        self._finish_sealing(0)
        self._packs.flush()
        return None

    def _read(self, batch: Batch) -> Iterator[_Reading]:
        reading = _Reading()
        for order in batch.files:
            part = reading.begin(order.number, False)
            content: Content = makers.find(order.maker)(*order.arguments)
            try:
                with content.open() as file:
                    part.skipped = passed_over(file, order.skip)
                    for chunk in self._chunks(order, part, file):
                        reading.add(part, chunk)
                        if reading.size >= BYTES_IN_ROUND:
                            yield reading
                            reading = _Reading()
                            part = reading.begin(order.number, part.skipped)
                part.state, part.remark = DONE, content.changed()
            except SnappyError:
                raise  # some of them are an OSError too
            except OSError as error:
                part.state, part.remark = LOST, unreadable(error)
        for bunch in batch.bunches:
            self._packs.raise_failure()
            reading.add_bunch(BunchReader(bunch))
            if reading.size >= BYTES_IN_ROUND:
                yield reading
                reading = _Reading()
        yield reading

    def _chunks(self, order: FileOrder, part: Part, file: BinaryIO) -> Iterator[bytes]:
        for chunk in self._cut(order, part, file):
            self._packs.raise_failure()
            yield chunk

    def _cut(self, order: FileOrder, part: Part, file: BinaryIO) -> Iterator[bytes]:
        if order.cut is not None:
            return blocks(file, order.cut)
        return self._part(order, part, file) if order.part and file.seekable() else self._chunker.chunks(file)

    def _part(self, order: FileOrder, part: Part, file: BinaryIO) -> Iterator[bytes]:
        """Cut it before anything else: meanwhile nobody can go on."""
        cut, is_all = self._chunker.part(file)
        if not is_all:
            begin = order.skip if part.skipped else 0
            self._link.send(Reached(order.number, begin + sum(map(len, cut))))
        return iter(cut)

    def _settle(self, left: int) -> None:
        """Store what is new in the rounds that were asked about first, until so many are left."""
        while len(self._waiting) > left:
            reading = self._waiting.popleft()
            new = self._answers.get()
            self._packs.raise_failure()
            self._save([chunk for is_new, chunk in zip(new, reading.chunks, strict=True) if is_new])

    def _save(self, chunks: list[NamedData]) -> None:
        together, size = list[NamedData](), 0
        for blob, chunk in chunks:
            if len(chunk) >= SMALLEST:
                self._finish_sealing(CHUNKS_IN_FLIGHT - 1)
                self._sealing.append(self._sealers.submit(self._packs.add, BlobType.DATA, chunk, blob))
            else:  # handing it over would cost more than it gives
                together.append((blob, chunk))
                size += len(chunk)
            if size >= BYTES_TOGETHER:
                self._packs.add_all(BlobType.DATA, together)
                together, size = [], 0
        self._packs.add_all(BlobType.DATA, together)

    def _finish_sealing(self, left: int) -> None:
        while len(self._sealing) > left:
            self._sealing.popleft().result()

    def _uploaded(self, pack: FinishedPack, _apart: bool) -> None:
        self._link.send(Packed(pack.id, pack.size, pack.blob_count, pack.plain, pack.header))


def work(link: WorkerLink, setup: Setup, store: Store) -> None:
    """What a worker process of a backup does."""
    heap.tune(heap.FOR_PACKS)
    Worker(link, setup, store).run()
