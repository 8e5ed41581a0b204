"""``snappy find`` by ids: the files and directories that trees, blobs and packs of a repository stand for."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from snappy.cli import output
from snappy.errors import UsageError

if TYPE_CHECKING:
    from snappy.repository.format import BlobLocation
    from snappy.repository.object_search import Found, ObjectSearch
    from snappy.repository.snapshots import Snapshot
    from snappy.repository.view import View


def register(find: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = find.add_argument_group("by id: whole, or its first letters")
    which = group.add_mutually_exclusive_group()
    which.add_argument("--blob", dest="objects", action="store_const", const="blob", help="parts of files")
    which.add_argument("--tree", dest="objects", action="store_const", const="tree", help="directories")
    which.add_argument("--pack", dest="objects", action="store_const", const="pack", help="all that is in a pack")
    group.add_argument("--show-pack-id", action="store_true", help="and the packs that they are in")


def find(view: View, snapshots: Iterable[Snapshot], arguments: argparse.Namespace) -> None:
    """Print where in these snapshots they are. Raises UsageError, NotFound, Damaged and StorageError."""
    from snappy.cli import browsing

    search = _search(view, arguments)
    found = (
        (snapshot, one) for snapshot in snapshots for one in search.search(snapshot, browsing.walk(view, snapshot))
    )
    if arguments.json:
        output.lines([output.encoded([_document(view, *each, arguments) for each in found])])
    else:
        output.lines(_lines(view, found, arguments))


def _search(view: View, arguments: argparse.Namespace) -> ObjectSearch:
    from snappy.repository.object_search import Ids, ObjectSearch, in_packs
    from snappy.repository.repo import Repository

    if arguments.objects == "tree":
        return ObjectSearch(trees=Ids(arguments.patterns))
    if arguments.objects == "blob":
        return ObjectSearch(blobs=Ids(arguments.patterns))
    repository = view.indexed()
    if not isinstance(repository, Repository):
        raise UsageError("only who has the repository looks into its packs", hint="name a place with --from")
    return in_packs(repository, arguments.patterns)


def _document(view: View, snapshot: Snapshot, found: Found, arguments: argparse.Namespace) -> dict[str, Any]:
    """As restic has it; with the pack, where that is asked for."""
    import msgspec

    from snappy.repository.gotext import json_string

    document = {"object_type": found.kind, "id": found.id.hex(), "path": json_string(found.path)}
    if found.parent is not None:
        document["parent_tree"] = found.parent.hex()
    document |= {"snapshot": snapshot.id, "time": msgspec.to_builtins(snapshot.time)}
    place = _place(view, found) if arguments.show_pack_id else None
    return document | ({"pack": place.pack.hex()} if place else {})


def _lines(view: View, hits: Iterable[tuple[Snapshot, Found]], arguments: argparse.Namespace) -> Iterator[bytes]:
    from snappy.browse import listing

    places: dict[bytes, BlobLocation | None] = {}
    for snapshot, found in hits:
        yield f"Found {found.kind} {found.id.hex()}".encode()
        if found.parent is None:
            yield b" ... path " + found.path
        else:
            yield b" ... in file " + found.path
            yield f"     (tree {found.parent.hex()})".encode()
        yield f" ... in snapshot {snapshot.id[:8]} ({listing.local_time(snapshot)})".encode()
        if arguments.show_pack_id and found.id not in places:
            places[found.id] = _place(view, found)
    for blob, place in places.items():
        yield from _pack_lines(blob, place)


def _pack_lines(blob: bytes, place: BlobLocation | None) -> Iterator[bytes]:
    if place is None:
        yield f"Object {blob.hex()[:8]} not found in the index".encode()
        return
    yield f"Object belongs to pack {place.pack.hex()}".encode()
    yield f" ... Pack {place.pack.hex()[:8]}: {blob.hex()} at {place.offset}, {place.length} bytes".encode()


def _place(view: View, found: Found) -> BlobLocation | None:
    return view.library.locate(found.blob_type, [found.id])[0]
