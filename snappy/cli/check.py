"""``snappy check``."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

from snappy.cli import follow, options, rules

if TYPE_CHECKING:
    from snappy.cli.session import Session


def register(commands: options.Commands) -> None:
    """Add the command."""
    check = options.command(commands, "check", "find out whether a repository is whole")
    options.repository(check, "--from", "the repository", "--target")
    options.following(check)
    rules.register(check)
    reading = check.add_mutually_exclusive_group()
    reading.add_argument("--read-data", action="store_true", help="read every pack, and prove all that is in it")
    reading.add_argument(
        "--read-data-subset",
        metavar="PART",
        help="read a part alone: 1/7 is the first of seven, next/7 the one that was read longest ago, "
        "10%% or 500M are as much of the packs at random",
    )
    check.set_defaults(run=lambda arguments: asyncio.run(_check(arguments)))


async def _check(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_repository(arguments) as opened:
        return await follow.run(opened, "check", fields(opened, arguments), arguments)


def fields(session: Session, arguments: argparse.Namespace) -> dict[str, Any]:
    """The command that the arguments stand for."""
    command = {
        **session.names(arguments.request),
        **rules.fields(arguments),
        "read_data": arguments.read_data,
        "read_data_subset": arguments.read_data_subset,
    }
    return {name: value for name, value in command.items() if value is not None}
