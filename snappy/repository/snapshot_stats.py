"""How much snapshots hold, counted as restic's ``stats`` counts it, and what each of them alone holds.

Source: restic's manual, "Getting information about repository data".
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence

import msgspec

from snappy.errors import Damaged
from snappy.repository.browsable import Browsable
from snappy.repository.crypto import OVERHEAD
from snappy.repository.entries import Node
from snappy.repository.format import BlobId, BlobLocation, BlobType
from snappy.repository.paths import ROOT, join
from snappy.repository.restored_file import plain_length
from snappy.repository.snapshots import Snapshot
from snappy.repository.tree_reader import TreeReader, subtrees

LOCATED_TOGETHER = 4000
SHARED = -1


class Stats(msgspec.Struct, omit_defaults=True):
    """Sizes are bytes; what a way of counting does not count is 0. Ratio and shares (in percent) are of blobs as they
    are stored."""

    total_size: int = 0
    total_uncompressed_size: int = 0
    compression_ratio: float = 0.0
    compression_progress: float = 0.0
    compression_space_saving: float = 0.0
    total_blob_count: int = 0
    total_file_count: int = 0
    snapshots_count: int = 0


class Alone(msgspec.Struct):
    """What no other of the snapshots counted refers to: so many blobs, as they are stored in so many bytes."""

    snapshot: str
    blobs: int = 0
    size: int = 0


def restore_size(library: Browsable, snapshots: Sequence[Snapshot]) -> Stats:
    """What restores of all of them would write, and how many objects; a file with several names is written once."""
    stats = Stats(snapshots_count=len(snapshots))
    for snapshot in snapshots:
        linked: set[tuple[int, int]] = set()
        for _, node in _nodes(library, snapshot):
            stats.total_file_count += 1
            name = (node.device_id, node.inode)
            if node.links <= 1 or node.type == "dir" or not node.inode or name not in linked:
                stats.total_size += node.size
            linked.add(name)
    return stats


def files_by_contents(library: Browsable, snapshots: Sequence[Snapshot]) -> Stats:
    """Files that differ in what is in them."""
    stats = Stats(snapshots_count=len(snapshots))
    for _, node in _different(library, snapshots):
        stats.total_size += node.size
        stats.total_file_count += 1
    return stats


def blobs_per_file(library: Browsable, snapshots: Sequence[Snapshot]) -> Stats:
    """The same, with each file's blobs counted once for each path that has them."""
    stats = Stats(snapshots_count=len(snapshots))
    known: dict[bytes, set[BlobId]] = {}
    for path, node in _different(library, snapshots):
        blobs = set(node.content or ())
        new = blobs - known.get(path, set())
        stats.total_file_count += bool(blobs) and path not in known
        stats.total_blob_count += len(new)
        stats.total_size += sum(map(plain_length, _places(library, BlobType.DATA, new)))
        if blobs:
            known.setdefault(path, set()).update(new)
    return stats


def raw_data(library: Browsable, snapshots: Sequence[Snapshot]) -> Stats:
    """What the blobs that they refer to take in the repository, each counted once."""
    stats = Stats(snapshots_count=len(snapshots))
    compressed = plain = 0
    for kind, blobs in _used(library, snapshots).items():
        for place in _places(library, kind, blobs):
            size = plain_length(place) + OVERHEAD
            stats.total_blob_count += 1
            stats.total_size += place.length
            stats.total_uncompressed_size += size
            if place.uncompressed_length:
                compressed, plain = compressed + place.length, plain + size
    if compressed:
        stats.compression_ratio = plain / compressed
    if stats.total_uncompressed_size:
        stats.compression_progress = plain / stats.total_uncompressed_size * 100
        stats.compression_space_saving = (1 - stats.total_size / stats.total_uncompressed_size) * 100
    return stats


def alone(library: Browsable, snapshots: Sequence[Snapshot]) -> list[Alone]:
    """What each of them alone holds: about what its end would free. In the order given."""
    found = [Alone(snapshot.id) for snapshot in snapshots]
    for kind, owners in _owners(library, snapshots).items():
        own = {blob: owner for blob, owner in owners.items() if owner != SHARED}
        for place in _places(library, kind, own):
            found[own[place.id]].blobs += 1
            found[own[place.id]].size += place.length
    return found


def _nodes(library: Browsable, snapshot: Snapshot) -> Iterator[tuple[bytes, Node]]:
    trees = TreeReader(library)
    left = [(ROOT, snapshot.tree_id)]
    while left:
        folder, tree = left.pop()
        for node in trees.load(tree, (one for _, one in reversed(left))):
            path = join(folder, node.name)
            yield path, node
            if node.type == "dir" and node.subtree:
                left.append((path, node.subtree))


def _different(library: Browsable, snapshots: Iterable[Snapshot]) -> Iterator[tuple[bytes, Node]]:
    known: set[bytes] = set()
    for snapshot in snapshots:
        for path, node in _nodes(library, snapshot):
            content = hashlib.sha256(b"".join(node.content or ())).digest()
            if content not in known:
                known.add(content)
                yield path, node


def _used(library: Browsable, snapshots: Sequence[Snapshot]) -> dict[BlobType, Collection[BlobId]]:
    return {kind: owners.keys() for kind, owners in _owners(library, snapshots).items()}


def _owners(library: Browsable, snapshots: Sequence[Snapshot]) -> dict[BlobType, dict[BlobId, int]]:
    """For each blob that is referred to the number of the snapshot that does, or ``SHARED``. A tree is read twice at
    most: all below a shared one is shared."""
    trees: dict[BlobId, int] = {}
    data: dict[BlobId, int] = {}
    reader = TreeReader(library)
    for number, snapshot in enumerate(snapshots):
        left = [snapshot.tree_id]
        while left:
            tree = left.pop()
            owner = _owner(trees.get(tree), number)
            if trees.get(tree) == owner:
                continue
            trees[tree] = owner
            nodes = reader.load(tree, reversed(left))
            left += reversed(subtrees(nodes))
            for blob in (blob for node in nodes for blob in node.content or ()):
                data[blob] = _owner(data.get(blob), number)
    return {BlobType.TREE: trees, BlobType.DATA: data}


def _owner(known: int | None, number: int) -> int:
    return number if known in (None, number) else SHARED


def _places(library: Browsable, kind: BlobType, blobs: Collection[BlobId]) -> Iterator[BlobLocation]:
    ids = list(blobs)
    for start in range(0, len(ids), LOCATED_TOGETHER):
        some = ids[start : start + LOCATED_TOGETHER]
        for blob, place in zip(some, library.locate(kind, some), strict=True):
            if place is None:
                raise Damaged(f"the {kind.value} blob {blob.hex()[:8]} is in no index")
            yield place
