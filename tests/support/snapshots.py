"""Snapshots for tests of the engine, of files that are nowhere."""

from __future__ import annotations

import io
import os
from datetime import UTC, datetime

from snappy.repository.entries import Node
from snappy.repository.format import BlobId, BlobType
from snappy.repository.repo import Repository
from snappy.repository.snapshots import Snapshot

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FILES = 6


def fill(repository: Repository, name: bytes = b"file") -> None:
    """A snapshot of two directories, in one of them six files of noise and text."""
    nodes = []
    for number in range(FILES):
        data = os.urandom(3000) + b"text" * 500
        content = [repository.save_blob(BlobType.DATA, part).id for part in repository.chunks(io.BytesIO(data))]
        nodes.append(Node(name=name + b"%d" % number, type="file", size=len(data), content=content))
    below = repository.save_tree(nodes)
    root = repository.save_tree([Node(name=b"below", type="dir", subtree=below.id)])
    repository.flush()
    save_snapshot(repository, root.id)


def save_snapshot(repository: Repository, tree: BlobId) -> str:
    """A snapshot of that tree, whatever it is."""
    return repository.save_snapshot(Snapshot(time=NOW, tree=tree.hex(), paths=["/"]))
