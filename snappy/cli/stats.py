"""``snappy stats``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from snappy.cli import options, output

if TYPE_CHECKING:
    from snappy.repository.snapshot_stats import Alone, Stats
    from snappy.repository.snapshots import Snapshot

MODES = ("restore-size", "files-by-contents", "blobs-per-file", "raw-data", "alone")
WAYS = """\
ways of counting:
  restore-size       what a restore writes (the default)
  files-by-contents  files that differ in what is in them
  blobs-per-file     the same, with each file's blobs counted once for each path
  raw-data           what the blobs take in the repository, each counted once
  alone              what each of the snapshots holds that no other of them refers to: about what its end would free
"""


def register(commands: options.Commands) -> None:
    """Add the command."""
    stats = options.command(commands, "stats", "count what snapshots hold")
    stats.epilog, stats.formatter_class = WAYS, argparse.RawDescriptionHelpFormatter
    stats.add_argument("snapshots", metavar="SNAPSHOT", nargs="*", help="ids, or latest (default: all)")
    options.browsing(stats)
    stats.add_argument("--mode", choices=MODES, default="restore-size")
    stats.set_defaults(run=_stats)


def _stats(arguments: argparse.Namespace) -> int:
    from snappy.cli import browsing
    from snappy.repository import snapshot_stats

    with browsing.opened(arguments) as view:
        snapshots = browsing.named(view, arguments.snapshots, arguments)
        if arguments.mode == "alone":
            each = snapshot_stats.alone(view.indexed(), snapshots)
            output.result(each, _alone(each, snapshots), as_json=arguments.json)
            return 0
        count = getattr(snapshot_stats, arguments.mode.replace("-", "_"))
        found = count(view.indexed(), snapshots)
        output.result(found, _shown(found, arguments.mode), as_json=arguments.json)
    return 0


def _shown(stats: Stats, mode: str) -> str:
    rows: list[tuple[str, Any]] = [
        ("Snapshots processed", stats.snapshots_count),
        ("Total File Count", stats.total_file_count),
        ("Total Blob Count", stats.total_blob_count),
        ("Total Uncompressed Size", stats.total_uncompressed_size and output.size(stats.total_uncompressed_size)),
        ("Total Size", output.size(stats.total_size)),
        ("Compression Progress", stats.compression_progress and f"{stats.compression_progress:.2f}%"),
        ("Compression Ratio", stats.compression_ratio and f"{stats.compression_ratio:.2f}x"),
        ("Compression Space Saving", stats.compression_space_saving and f"{stats.compression_space_saving:.2f}%"),
    ]
    told = [f"{name:>24}:  {value}" for name, value in rows if value or name == "Snapshots processed"]
    return "\n".join([f"Stats in {mode} mode:", *told])


def _alone(found: list[Alone], snapshots: list[Snapshot]) -> str:
    rows = [
        [snapshot.id[:8], output.moment(snapshot.time.timestamp()), str(each.blobs), output.size(each.size)]
        for each, snapshot in zip(found, snapshots, strict=True)
    ]
    return output.table(("ID", "TIME (UTC)", "BLOBS", "SIZE"), rows)
