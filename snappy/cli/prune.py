"""``snappy prune``."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

from snappy.cli import follow, options, rules

if TYPE_CHECKING:
    from snappy.cli.session import Session

LIMITS = ("max_unused", "max_repack_size", "repack_smaller_than", "repack_cacheable_only", "repack_uncompressed")
"""The fields that say how much is stored again."""


def register(commands: options.Commands) -> None:
    """Add the command."""
    prune = options.command(commands, "prune", "delete what no snapshot uses")
    options.repository(prune, "--from", "the repository", "--target")
    options.following(prune)
    rules.register(prune)
    prune.add_argument("--dry-run", "-n", action="store_true", help="only say what would be done")
    limits(prune)
    prune.set_defaults(run=lambda arguments: asyncio.run(_prune(arguments)))


def limits(parser: argparse.ArgumentParser) -> None:
    """What is stored again, so that the rest of its packs can be deleted: restic's options."""
    group = parser.add_argument_group("what is repacked")
    group.add_argument("--max-unused", metavar="LIMIT", help="unused data that may stay: 5%%, 500M or unlimited")
    group.add_argument("--max-repack-size", metavar="SIZE", help="store so much again at most")
    group.add_argument("--repack-smaller-than", metavar="SIZE", help="join packs smaller than that")
    group.add_argument("--repack-cacheable-only", action="store_true", help="only packs of directories")
    group.add_argument("--repack-uncompressed", action="store_true", help="packs with uncompressed data, too")
    group.add_argument("--repack-small", action="store_true", help=argparse.SUPPRESS)  # restic does so by itself now


async def _prune(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_repository(arguments) as opened:
        return await follow.run(opened, "prune", fields(opened, arguments), arguments)


def fields(session: Session, arguments: argparse.Namespace) -> dict[str, Any]:
    """The command that the arguments stand for."""
    command = {**session.names(arguments.request), **rules.fields(arguments), "dry_run": arguments.dry_run}
    limited = {name: getattr(arguments, name) for name in LIMITS}
    return {name: value for name, value in {**command, **limited}.items() if value is not None}
