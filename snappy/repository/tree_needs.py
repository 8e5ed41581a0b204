"""What a tree needs to be whole, read with no more of its nodes than that: of a snapshot with millions of files the
rest would cost the most.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from snappy.errors import Damaged
from snappy.repository.format import BlobId, decode_json, parse_id


class _Node(msgspec.Struct, gc=False):
    name: str
    type: str
    content: list[str] | None = None
    subtree: str | None = None


class _Tree(msgspec.Struct, gc=False):
    nodes: list[_Node] | None


class TreeNeeds:
    """The blobs that a tree with these plain bytes names. Every method raises :class:`Damaged` where one is no id or is
    not named."""

    def __init__(self, data: bytes) -> None:
        self._nodes = decode_json(data, _Tree, "the tree").nodes or ()

    def contents(self) -> Iterator[BlobId]:
        """The blobs of its files."""
        for node in self._nodes:
            if node.type == "file":
                for blob in node.content or ():
                    yield parse_id(blob)

    def subtrees(self) -> Iterator[BlobId]:
        """The trees of its directories."""
        for node in self._nodes:
            if not node.name:
                raise Damaged("something in it has no name")
            if node.type == "dir":
                if not node.subtree:
                    raise Damaged("it does not say what is in one of its directories")
                yield parse_id(node.subtree)
