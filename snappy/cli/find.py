"""``snappy find``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from snappy.cli import objects, options, output, rules

if TYPE_CHECKING:
    from snappy.browse.listing import Entry
    from snappy.repository.entries import Node
    from snappy.repository.format import BlobId
    from snappy.repository.snapshots import Snapshot
    from snappy.repository.view import View

REMEMBERED = 200_000
"""Directories, of some 250 bytes each."""


def register(commands: options.Commands) -> None:
    """Add the command."""
    find = options.command(commands, "find", "find files and directories in snapshots")
    find.add_argument("patterns", metavar="PATTERN", nargs="+", help="a name, or a path with wildcards; or an id")
    options.browsing(find)
    find.add_argument("--snapshot", "-s", metavar="ID", action="append", default=[], help="only in this one")
    find.add_argument("--ignore-case", "-i", action="store_true")
    find.add_argument("--long", "-l", action="store_true", help="with mode, owner, size and time")
    find.add_argument("--human-readable", action="store_true", help="sizes in units")
    find.add_argument("--newest", "-N", metavar="TIME", type=rules.moment, help="changed then or before")
    find.add_argument("--oldest", "-O", metavar="TIME", type=rules.moment, help="changed then or later")
    find.add_argument("--reverse", "-R", action="store_true", help="the oldest snapshot first")
    objects.register(find)
    find.set_defaults(run=_find)


def _find(arguments: argparse.Namespace) -> int:
    from snappy.cli import browsing

    with browsing.opened(arguments) as view:
        snapshots = browsing.named(view, arguments.snapshot, arguments)
        ordered = sorted(snapshots, key=lambda each: each.time, reverse=not arguments.reverse)
        if arguments.objects:
            objects.find(view, ordered, arguments)
            return 0
        finder = _Finder(view, arguments)
        found = ((snapshot, finder.matches(snapshot)) for snapshot in ordered)
        hits = ((snapshot, entries) for snapshot, entries in found if entries)
        output.lines(_document(hits) if arguments.json else _lines(hits, arguments))
    return 0


Hits = Iterator[tuple["Snapshot", list["Entry"]]]


class _Finder:
    """Finds in one snapshot after the other; what is below a directory that did not change is looked at once."""

    def __init__(self, view: View, arguments: argparse.Namespace) -> None:
        from snappy.repository.patterns import Patterns

        self._view = view
        self._patterns = Patterns(arguments.patterns, ignore_case=arguments.ignore_case)
        self._in_time = _in_time(arguments)
        self._below: dict[tuple[bytes, BlobId | None], tuple[Entry, ...]] = {}

    def matches(self, snapshot: Snapshot) -> list[Entry]:
        from snappy.cli import browsing
        from snappy.repository.progress import Problems
        from snappy.repository.snapshot_walk import Kind, Selection, SnapshotWalk

        problems = Problems()
        found: list[Entry] = []
        inside: list[tuple[int, int]] = []
        lost = 0
        walk = SnapshotWalk(self._view.indexed(), Selection(), problems, known=self._below)
        for kind, path, node in walk.steps(snapshot):
            if kind is Kind.LEAVE:
                first, lost_before = inside.pop()
                if problems.total == lost_before and len(self._below) < REMEMBERED:
                    self._below[path, node.subtree] = tuple(found[first:])
            elif self._is_wanted(path, node):
                found.append((path, node))
            if kind is Kind.ENTER:
                inside.append((len(found), lost))
            elif kind is Kind.KNOWN:
                found += self._below[path, node.subtree]
            lost = problems.total
        browsing.tell(problems, snapshot)
        return found

    def _is_wanted(self, path: bytes, node: Node) -> bool:
        return self._patterns.match(path, directory=node.type == "dir") and self._in_time(node.mtime_ns)


def _in_time(arguments: argparse.Namespace) -> Callable[[int], bool]:
    from datetime import datetime

    oldest, newest = (
        datetime.fromisoformat(given).timestamp() * 1e9 if given else limit
        for given, limit in ((arguments.oldest, float("-inf")), (arguments.newest, float("inf")))
    )
    return lambda when: oldest <= when <= newest


def _document(hits: Hits) -> Iterator[bytes]:
    from snappy.browse import listing

    found = [
        {
            "matches": [listing.match_document(*entry) for entry in entries],
            "hits": len(entries),
            "snapshot": snapshot.id,
        }
        for snapshot, entries in hits
    ]
    yield output.encoded(found)


def _lines(hits: Hits, arguments: argparse.Namespace) -> Iterator[bytes]:
    from snappy.browse import listing

    measure = output.size if arguments.human_readable else listing.plain_size
    for number, (snapshot, entries) in enumerate(hits):
        head = f"Found matching entries in snapshot {snapshot.id[:8]} from {listing.local_time(snapshot)}"
        yield (b"\n" if number else b"") + head.encode()
        yield from (listing.line(*entry, measure) if arguments.long else entry[0] for entry in entries)
