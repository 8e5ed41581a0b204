"""``snappy cat``: a file's bytes, or an object of the repository."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from snappy.cli import options, output, ranges
from snappy.errors import UsageError

if TYPE_CHECKING:
    from snappy.repository.view import View

OBJECTS = ("snapshot", "tree")


def register(commands: options.Commands) -> None:
    """Add the command."""
    cat = options.command(commands, "cat", "print a file of a snapshot")
    cat.add_argument("snapshot", metavar="SNAPSHOT[:FOLDER]", help="an id, its first letters, or latest")
    cat.add_argument("paths", metavar="PATH", nargs="+", help="a file, or a link to one")
    options.browsing(cat)
    ranges.register(cat)
    cat.epilog = (
        "`cat snapshot ID` and `cat tree ID:FOLDER` print the JSON of a snapshot, or of one of its directories."
    )
    cat.set_defaults(run=_cat)


def _cat(arguments: argparse.Namespace) -> int:
    from snappy.browse import words
    from snappy.cli import browsing

    with browsing.opened(arguments) as view:
        if arguments.snapshot in OBJECTS:
            _object(view, arguments)
            return 0
        tree = browsing.tree(view, arguments.snapshot, arguments)
        for path in arguments.paths:
            output.raw(ranges.stream(view.file(tree.file(words.raw(path))), arguments))
    return 0


def _object(view: View, arguments: argparse.Namespace) -> None:
    import msgspec

    from snappy.cli import browsing
    from snappy.repository.format import BlobType

    ranges.refuse(arguments, f"a {arguments.snapshot}")
    if len(arguments.paths) != 1:
        raise UsageError(f"which {arguments.snapshot}?", hint=f"for example `snappy cat {arguments.snapshot} latest`")
    snapshot = browsing.tree(view, arguments.paths[0], arguments).snapshot
    if arguments.snapshot == "tree":
        output.raw([view.indexed().load_blob(BlobType.TREE, snapshot.tree_id)])
    else:
        output.lines([msgspec.json.format(output.encoded(snapshot), indent=2)])
