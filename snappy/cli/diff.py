"""``snappy diff``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from snappy.cli import options, output

if TYPE_CHECKING:
    from snappy.repository.snapshot_diff import Side, SnapshotDiff
    from snappy.repository.snapshot_tree import SnapshotTree

LETTERS = """\
  +  added
  -  removed
  U  other metadata (with --metadata)
  M  another content
  T  another type
  ?  another content and else the same: it may be damage
"""


def register(commands: options.Commands) -> None:
    """Add the command."""
    diff = options.command(commands, "diff", "compare two snapshots")
    diff.epilog, diff.formatter_class = LETTERS, argparse.RawDescriptionHelpFormatter
    diff.add_argument("old", metavar="OLD[:FOLDER]", help="an id, its first letters, or latest")
    diff.add_argument("new", metavar="NEW[:FOLDER]")
    options.browsing(diff)
    diff.add_argument("--metadata", action="store_true", help="tell also of what differs in nothing else")
    diff.set_defaults(run=_diff)


def _diff(arguments: argparse.Namespace) -> int:
    from snappy.cli import browsing
    from snappy.repository.snapshot_diff import SnapshotDiff

    with browsing.opened(arguments) as view:
        old, new = (browsing.tree(view, each, arguments) for each in (arguments.old, arguments.new))
        diff = SnapshotDiff(view.indexed(), metadata=arguments.metadata)
        output.lines(_documents(diff, old, new, arguments) if arguments.json else _lines(diff, old, new))
    return 0


def _documents(
    diff: SnapshotDiff, old: SnapshotTree, new: SnapshotTree, arguments: argparse.Namespace
) -> Iterator[bytes]:
    from snappy.repository.gotext import json_string

    for change in diff.changes(old.snapshot.tree_id, new.snapshot.tree_id):
        path = json_string(change.path)
        yield output.encoded({"message_type": "change", "path": path, "modifier": change.modifier})
    statistics: dict[str, Any] = {
        "message_type": "statistics",
        "source_snapshot": arguments.old,
        "target_snapshot": arguments.new,
        "changed_files": diff.changed_files,
        "added": diff.added,
        "removed": diff.removed,
    }
    yield output.encoded(statistics)


def _lines(diff: SnapshotDiff, old: SnapshotTree, new: SnapshotTree) -> Iterator[bytes]:
    yield f"comparing snapshot {old.snapshot.id[:8]} to {new.snapshot.id[:8]}:\n".encode()
    for change in diff.changes(old.snapshot.tree_id, new.snapshot.tree_id):
        yield f"{change.modifier:<5}".encode() + change.path
    yield _summary(diff, diff.added, diff.removed).encode()


def _summary(diff: SnapshotDiff, added: Side, removed: Side) -> str:
    return "\n".join(
        (
            "",
            f"Files:       {added.files:5d} new, {removed.files:5d} removed, {diff.changed_files:5d} changed",
            f"Dirs:        {added.dirs:5d} new, {removed.dirs:5d} removed",
            f"Others:      {added.others:5d} new, {removed.others:5d} removed",
            f"Data Blobs:  {added.data_blobs:5d} new, {removed.data_blobs:5d} removed",
            f"Tree Blobs:  {added.tree_blobs:5d} new, {removed.tree_blobs:5d} removed",
            f"  Added:   {output.size(added.bytes)}",
            f"  Removed: {output.size(removed.bytes)}",
        )
    )
