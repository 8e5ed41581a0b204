"""Trees from afar come many at a time, in the order in which a walk needs them, whatever the answers hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import pytest

from snappy.browse.tree_shelf import TreeShelf
from snappy.errors import Damaged
from snappy.repository.format import BlobId, blob_id, encode_json
from snappy.repository.tree_needs import TreeNeeds

MOST = 64


class Afar:
    """Trees behind a question that costs; an answer holds ``fits`` of them."""

    def __init__(self, fits: int = MOST) -> None:
        self.trees: dict[BlobId, bytes] = {}
        self.fits, self.questions, self.whole = fits, 0, 0

    def add(self, name: str, below: Sequence[BlobId] = ()) -> BlobId:
        nodes = [{"name": f"{name}{number}", "type": "dir", "subtree": tree.hex()} for number, tree in enumerate(below)]
        data = encode_json({"nodes": [*nodes, {"name": name, "type": "file"}]})
        self.trees[blob_id(data)] = data
        return blob_id(data)

    def fetch(self, wanted: Sequence[BlobId]) -> list[bytes]:
        assert len(set(wanted)) == len(wanted) <= MOST
        self.questions += 1
        return [self.trees[tree] for tree in wanted[: self.fits]]

    def load(self, tree: BlobId) -> bytes:
        self.whole += 1
        return self.trees[tree]

    def shelf(self, kept_bytes: int = 1 << 20) -> TreeShelf:
        return TreeShelf(self.fetch, self.load, most=MOST, kept_bytes=kept_bytes)


def grown(afar: Afar, name: str, widths: Sequence[int]) -> BlobId:
    """A tree with so many below it, each with as many below as the next number says; all of them differ."""
    below = [grown(afar, f"{name}.{number}", widths[1:]) for number in range(widths[0])] if widths else []
    return afar.add(name, below)


def walk(shelf: TreeShelf, tree: BlobId, *ahead: Sequence[BlobId]) -> Iterator[BlobId]:
    """Depth first."""
    data = shelf.take(tree, chain.from_iterable(reversed(ahead)))
    yield blob_id(data)
    below = list(TreeNeeds(data).subtrees())
    for number, one in enumerate(below):
        yield from walk(shelf, one, *ahead, below[number + 1 :])


@pytest.mark.parametrize("widths", [[600], [25, 25], [4] * 5, [1] * 40], ids=str)
def test_a_walk_asks_rarely_and_sees_all(widths: list[int]) -> None:
    afar = Afar()
    root = grown(afar, "d", widths)
    assert set(walk(afar.shelf(), root)) == set(afar.trees)
    assert afar.questions <= len(afar.trees) / MOST * 2 + len(widths) + 1
    assert afar.whole == 0


def test_what_another_snapshot_shares_is_not_asked_for_again() -> None:
    afar = Afar()
    shared = grown(afar, "s", [25, 25])
    first, second = afar.add("one", [shared]), afar.add("two", [shared])
    shelf = afar.shelf()
    assert len(list(walk(shelf, first))) == len(list(walk(shelf, second)))
    before = afar.questions
    assert len(list(walk(shelf, second))) > 600
    assert afar.questions == before


def test_answers_hold_what_they_can() -> None:
    """Of a tree that none can hold, nothing; it comes by itself."""
    afar = Afar(fits=3)
    assert set(walk(afar.shelf(), grown(afar, "d", [10, 3]))) == set(afar.trees)
    afar.fits, afar.whole = 0, 0
    assert set(walk(afar.shelf(), grown(afar, "e", [10]))) < set(afar.trees)
    assert afar.whole == 11


def test_memory_is_bounded() -> None:
    afar = Afar()
    root = grown(afar, "d", [25, 25])
    shelf = afar.shelf(kept_bytes=20_000)
    assert set(walk(shelf, root)) == set(afar.trees)
    assert sum(len(one.data) for one in shelf._kept.values()) <= 20_000


def test_what_came_changed_is_told() -> None:
    afar = Afar()
    tree = afar.add("d")
    afar.trees[tree] += b" "
    with pytest.raises(Damaged, match="came changed"):
        afar.shelf().take(tree, ())
