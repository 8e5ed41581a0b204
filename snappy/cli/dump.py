"""``snappy dump``."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from snappy.cli import options, output, ranges
from snappy.errors import UsageError

if TYPE_CHECKING:
    from snappy.repository.snapshot_tree import SnapshotTree
    from snappy.repository.view import View


def register(commands: options.Commands) -> None:
    """Add the command."""
    dump = options.command(commands, "dump", "write a file of a snapshot, or a directory as an archive")
    dump.add_argument("snapshot", metavar="SNAPSHOT[:FOLDER]", help="an id, its first letters, or latest")
    dump.add_argument("file", metavar="PATH", help="a file, or a directory (/ for all)")
    options.browsing(dump)
    ranges.register(dump)
    dump.add_argument("--archive", "-a", choices=("tar", "zip"), default="tar", help="for a directory (default: tar)")
    dump.add_argument("--to", "--output", "-t", metavar="FILE", help="write there (default: standard output)")
    dump.set_defaults(run=_dump)


def _dump(arguments: argparse.Namespace) -> int:
    from snappy.cli import browsing

    with browsing.opened(arguments) as view:
        tree = browsing.tree(view, arguments.snapshot, arguments)
        with _out(arguments.to) as out:
            _write(view, tree, arguments, out)
    return 0


def _out(place: str | None) -> AbstractContextManager[BinaryIO]:
    try:
        return Path(place).open("wb") if place else output.piping()
    except OSError as error:
        raise UsageError(f"cannot write {place}: {error.strerror}") from error


def _write(view: View, tree: SnapshotTree, arguments: argparse.Namespace, out: BinaryIO) -> None:
    from snappy.browse import archives, words
    from snappy.cli import browsing

    path = b"/" + words.raw(arguments.file).strip(b"/")
    if tree.node(path, follow=True).type == "dir":
        ranges.refuse(arguments, arguments.file)
        write = archives.write_zip if arguments.archive == "zip" else archives.write_tar
        write(view, browsing.walk(view, tree.snapshot, path), out)
    else:
        for piece in ranges.stream(view.file(tree.file(path)), arguments):
            out.write(piece)
