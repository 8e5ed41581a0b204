"""What a worker process of a restore does: it brings contents into files, and completes those that it brings whole.

It knows no index: a blob that is damaged where it was sent to is left to the restore, which knows other copies of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from snappy import heap
from snappy.decoding import from_msgpack
from snappy.repository import makers
from snappy.repository.batch import Places
from snappy.repository.bringer import Bringer, LoadBlobs
from snappy.repository.crypto import SealingKey
from snappy.repository.entries import Identity, Node, Problem, SharedSink
from snappy.repository.errands import Errands
from snappy.repository.format import MIB, BlobLocation
from snappy.repository.index import MemoryIndex
from snappy.repository.link import Setup, WorkerLink
from snappy.repository.progress import Cancelled, Problems, Progress
from snappy.repository.reader import BlobReader
from snappy.repository.restored_file import FilePart, Outcome, Piece, RestoredFile
from snappy.repository.store import Store

THREADS = 2
"""One waits for its bytes while the other writes what it has."""

LARGEST_READ = 10 * MIB
"""What an errand wants of one pack comes in one or two reads: each costs three processes some milliseconds."""


class FileErrand(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A file to be brought whole; or, if it has an ``identity``, these pieces of one that is there."""

    path: bytes
    node: Node
    pieces: list[Piece]
    identity: Identity | None


class RestoreErrand(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Files to be brought into the sink that ``maker`` makes of ``arguments`` (see :class:`SharedSink`)."""

    number: int
    maker: str
    arguments: Sequence[Any]
    files: list[FileErrand]


class Told(NamedTuple):
    """Problems, the first thousand of their ``total``."""

    kept: list[Problem]
    total: int


class Restored(msgspec.Struct, array_like=True, frozen=True):
    """What came of an errand. Files are told by their place in it: ``again`` are those of which a blob was damaged."""

    number: int
    failed: list[int]
    again: list[int]
    problems: Told
    remarks: Told


class _Porter(Bringer):
    """Brings what one errand asks for."""

    def __init__(self, load_blobs: LoadBlobs, cancelled: Cancelled) -> None:
        super().__init__(load_blobs, Progress(), Problems(), Problems(), cancelled)
        self.damaged = set[RestoredFile]()

    def lose(self, file: RestoredFile, location: BlobLocation) -> None:
        self.damaged.add(file)

    def bring(self, files: Sequence[RestoredFile], wanted: Places) -> None:
        try:
            for pack in wanted.packs:
                self.fetch(wanted, pack)
        finally:
            for file in files:
                file.abandon()


def bring(errand: RestoreErrand, sink: SharedSink, load_blobs: LoadBlobs, cancelled: Cancelled) -> Restored:
    """Do the errand. Raises what reader, sink and ``cancelled`` raise."""
    porter = _Porter(load_blobs, cancelled)
    files = [_file(one, sink) for one in errand.files]
    porter.bring(files, Places((file, one.pieces) for file, one in zip(files, errand.files, strict=True)))
    return Restored(
        errand.number,
        _numbers(files, lambda file: file.outcome.failed and file not in porter.damaged),
        _numbers(files, lambda file: file in porter.damaged),
        Told(porter.problems.kept, porter.problems.total),
        Told(porter.remarks.kept, porter.remarks.total),
    )


def _file(one: FileErrand, sink: SharedSink) -> RestoredFile:
    if one.identity is None:
        return RestoredFile(Outcome(one.path), one.node, sink, len(one.pieces))
    return FilePart(Outcome(one.path), one.node, sink, len(one.pieces), one.identity)


def _numbers(files: Iterable[RestoredFile], chosen: Callable[[RestoredFile], bool]) -> list[int]:
    return [number for number, file in enumerate(files) if chosen(file)]


@lru_cache(maxsize=1)
def _sink(maker: str, arguments: tuple[Any, ...]) -> SharedSink:
    """One for all errands: it keeps directories open."""
    made: SharedSink = makers.find(maker)(*arguments)
    return made


def work(link: WorkerLink, setup: Setup, store: Store) -> None:
    heap.tune(heap.FOR_FRAMES)
    reader = BlobReader(store, SealingKey.from_json(setup.key), MemoryIndex(), largest_read=LARGEST_READ)

    def do(body: bytes) -> bytes:
        errand = from_msgpack(body, RestoreErrand)
        sink = _sink(errand.maker, tuple(errand.arguments))
        return msgspec.msgpack.encode(bring(errand, sink, reader.load_many, errands.check))

    errands = Errands(link, store, do, THREADS)
    errands.run()
