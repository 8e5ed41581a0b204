"""``snappy ls``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from snappy.cli import options, output

if TYPE_CHECKING:
    from snappy.browse.listing import Entry
    from snappy.repository.snapshot_tree import SnapshotTree
    from snappy.repository.snapshots import Snapshot
    from snappy.repository.view import View

ORDERS = ("name", "size", "time", "mtime", "atime", "ctime", "extension")


def register(commands: options.Commands) -> None:
    """Add the command."""
    ls = options.command(commands, "ls", "list what is in a snapshot")
    ls.add_argument("snapshot", metavar="SNAPSHOT[:FOLDER]", help="an id, its first letters, or latest")
    ls.add_argument("folders", metavar="PATH", nargs="*", help="only these, and what is right in them (default: all)")
    options.browsing(ls)
    ls.add_argument("--long", "-l", action="store_true", help="with mode, owner, size and time")
    ls.add_argument("--recursive", action="store_true", help="what is deeper in the folders too")
    ls.add_argument("--human-readable", action="store_true", help="sizes in units")
    ls.add_argument("--sort", "-s", choices=ORDERS, default="name", help="default: name")
    ls.add_argument("--reverse", action="store_true", help="in the opposite order")
    ls.set_defaults(run=_ls)


def _ls(arguments: argparse.Namespace) -> int:
    from snappy.browse import listing
    from snappy.cli import browsing

    with browsing.opened(arguments) as view:
        tree = browsing.tree(view, arguments.snapshot, arguments)
        found = _entries(view, tree, arguments)
        if arguments.sort != "name" or arguments.reverse:
            found = iter(sorted(found, key=listing.ORDERS[arguments.sort], reverse=arguments.reverse))
        output.lines(_documents(tree.snapshot, found) if arguments.json else _lines(tree.snapshot, found, arguments))
    return 0


def _entries(view: View, tree: SnapshotTree, arguments: argparse.Namespace) -> Iterator[Entry]:
    from snappy.browse import words
    from snappy.cli import browsing

    if not arguments.folders:
        yield from browsing.walk(view, tree.snapshot)
    for each in arguments.folders:
        folder = b"/" + words.raw(each).strip(b"/")
        node = tree.node(folder)
        if folder != b"/":
            yield folder, node
        if node.type == "dir" and arguments.recursive:
            yield from browsing.walk(view, tree.snapshot, folder=folder)
        elif node.type == "dir":
            yield from ((folder.rstrip(b"/") + b"/" + child.name, child) for child in tree.children(folder))


def _documents(snapshot: Snapshot, entries: Iterator[Entry]) -> Iterator[bytes]:
    from snappy.browse import listing

    yield output.encoded(listing.snapshot_document(snapshot))
    for path, node in entries:
        yield output.encoded(listing.document(path, node))


def _lines(snapshot: Snapshot, entries: Iterator[Entry], arguments: argparse.Namespace) -> Iterator[bytes]:
    from snappy.browse import listing

    who = f"{snapshot.username}@{snapshot.hostname}"
    when = listing.local_time(snapshot)
    yield f"snapshot {snapshot.id[:8]} of [{' '.join(snapshot.paths or ())}] at {when} by {who}:".encode()
    measure = output.size if arguments.human_readable else listing.plain_size
    for path, node in entries:
        yield listing.line(path, node, measure) if arguments.long else path
