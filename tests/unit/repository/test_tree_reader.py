"""Trees of a snapshot come in few reads, whatever their shape, and one that is damaged harms no other."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator

import pytest

from snappy.errors import Damaged
from snappy.repository import tree_reader
from snappy.repository.archiver import Archiver
from snappy.repository.entries import Entry, Node
from snappy.repository.format import BlobType
from snappy.repository.repo import Repository
from snappy.repository.tree_reader import TreeReader, subtrees
from tests.support import engine

WIDE = [f"/{number:03}" for number in range(600)]
DEEP = ["/d" * depth for depth in range(1, 200)]
LETTERS = "abcdefgh"
MIXED = sorted({f"/{a}/{b}/{c}"[:end] for a in LETTERS for b in LETTERS for c in LETTERS for end in (2, 4, 6)})


def entries(folders: list[str]) -> Iterator[Entry]:
    """The folders, each with a file of its own."""
    for path in map(os.fsencode, dict.fromkeys(folders)):
        yield Entry(path=path, node=Node(name=os.path.basename(path), type="dir"))
        file = Node(name=b"!file", type="file", inode=hash(path) % 1000, size=1, user=os.urandom(20).hex())
        yield Entry(path=path + b"/!file", node=file, open=lambda: io.BytesIO(b"x"))


def walk(reader: TreeReader, repository: Repository, tree: bytes, siblings: list[bytes]) -> int:
    """How many trees there are; each is what it is by itself."""
    nodes = reader.load(tree, siblings)
    assert nodes == repository.load_tree(tree)
    below = subtrees(nodes)
    return 1 + sum(walk(reader, repository, one, below[number + 1 :]) for number, one in enumerate(below))


@pytest.mark.parametrize("folders", [WIDE, DEEP, MIXED], ids=["wide", "deep", "mixed"])
def test_one_read_brings_many(folders: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with engine.new_repository() as repository:
        done = Archiver(repository).backup(entries(folders), paths=["/"], hostname="h")
        reads = []
        real = repository.read_pack

        def counted(pack: bytes, offset: int, length: int) -> bytes:
            reads.append(length)
            return real(pack, offset, length)

        monkeypatch.setattr(repository, "read_pack", counted)
        monkeypatch.setattr(tree_reader, "AROUND", 16 << 10)
        found = walk(TreeReader(repository), repository, done.snapshot.tree_id, [])
    stored = done.summary.data_added_packed
    assert found == len(set(folders)) + 1
    assert len(reads) < found / 8
    assert sum(reads) < 2 * stored + (64 << 10)


def test_a_damaged_tree_is_told_and_no_other() -> None:
    with engine.new_repository() as repository:
        done = Archiver(repository).backup(entries(WIDE), paths=["/"], hostname="h")
        below = subtrees(repository.load_tree(done.snapshot.tree_id))
        place = repository.location(BlobType.TREE, below[7])
        assert place
        engine.flip(repository.store, f"data/{place.pack.hex()[:2]}/{place.pack.hex()}", place.offset + 20)
        reader = TreeReader(repository)
        assert reader.load(below[6], below[7:]) == repository.load_tree(below[6])
        with pytest.raises(Damaged):
            reader.load(below[7], below[8:])
        assert reader.load(below[8]) == repository.load_tree(below[8])
