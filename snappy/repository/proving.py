"""What a worker process of a check does: it proves packs."""

from __future__ import annotations

import msgspec

from snappy import heap
from snappy.decoding import from_msgpack
from snappy.repository.crypto import SealingKey
from snappy.repository.errands import Errands
from snappy.repository.format import PackId
from snappy.repository.index import MemoryIndex
from snappy.repository.link import Setup, WorkerLink
from snappy.repository.pack_proof import CheckedPack, PackProof
from snappy.repository.reader import BlobReader
from snappy.repository.store import Store

THREADS = 2
"""One waits for its bytes while the other proves what it has."""


class Proven(msgspec.Struct, array_like=True, frozen=True):
    """A pack of ``size`` bytes was read, and this was found: names of kinds, ids, messages."""

    pack: PackId
    size: int
    findings: list[tuple[str, str, str]]


def prove(proof: PackProof, pack: CheckedPack) -> Proven:
    """Read the pack, and say what was found."""
    found = [(finding.kind.name, finding.id, finding.message) for finding in proof.findings(pack)]
    return Proven(pack.id, pack.size, found)


def work(link: WorkerLink, setup: Setup, store: Store) -> None:
    """Blocks of megabytes come and go all the time, in few threads: the allocator keeps them."""
    heap.tune(heap.FOR_FRAMES)
    reader = BlobReader(store, SealingKey.from_json(setup.key), MemoryIndex())

    errands = Errands(link, store, lambda pack: _proved(proof, pack), THREADS)
    proof = PackProof(reader, errands.check)
    errands.run()


def _proved(proof: PackProof, pack: bytes) -> bytes:
    return msgspec.msgpack.encode(prove(proof, from_msgpack(pack, CheckedPack)))
