"""``snappy repair index|packs|snapshots``."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

from snappy.cli import follow, options, rules

if TYPE_CHECKING:
    from snappy.cli.session import Session

EPILOG = """\
Repair the index first, then packs, then back up again what is still there, and repair snapshots last: they are made
anew without what is lost.
"""


def register(commands: options.Commands) -> None:
    """Add the commands."""
    repair = options.command(
        commands,
        "repair",
        "save what can be saved of a damaged repository",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = repair.add_subparsers(dest="what", title="what", metavar="WHAT", required=True)
    index = _part(parts, "index", "list what packs hold, and no more")
    index.add_argument("--read-all-packs", action="store_true", help="believe no index file, but every pack's header")
    packs = _part(parts, "packs", "save the whole blobs of damaged packs, and drop the rest")
    packs.add_argument(
        "ids", nargs="*", metavar="PACK", help="its id (default: all that are damaged; reads every pack)"
    )
    snapshots = _part(parts, "snapshots", "make snapshots anew without what is lost")
    snapshots.add_argument("ids", nargs="*", metavar="SNAPSHOT", help="its id, or its first letters (default: all)")
    snapshots.add_argument("--forget", action="store_true", help="remove those that were made anew")


def _part(parts: options.Commands, name: str, summary: str) -> argparse.ArgumentParser:
    part = options.command(parts, name, summary)
    options.repository(part, "--from", "the repository", "--target")
    options.following(part)
    rules.register(part)
    part.add_argument("--dry-run", "-n", action="store_true", help="only say what would be done")
    part.set_defaults(run=lambda arguments: asyncio.run(_repair(arguments)))
    return part


async def _repair(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_repository(arguments) as opened:
        return await follow.run(opened, "repair", fields(opened, arguments), arguments)


def fields(session: Session, arguments: argparse.Namespace) -> dict[str, Any]:
    """The command that the arguments stand for."""
    command = {
        **session.names(arguments.request),
        **rules.fields(arguments),
        "what": arguments.what,
        "dry_run": arguments.dry_run,
        "ids": getattr(arguments, "ids", []),
        "read_all_packs": getattr(arguments, "read_all_packs", False),
        "forget": getattr(arguments, "forget", False),
    }
    return {name: value for name, value in command.items() if value is not None}
