"""``snappy copy``."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

from snappy.cli import follow, options, rules

if TYPE_CHECKING:
    from snappy.cli.session import Session


def register(commands: options.Commands) -> None:
    """Add the command."""
    copy = options.command(commands, "copy", "copy snapshots into another repository, with another key")
    options.origin(copy)
    options.repository(copy, "--to", "the repository that gets them", "--target")
    options.following(copy)
    rules.register(copy)
    copy.add_argument(
        "snapshots", metavar="SNAPSHOT", nargs="*", help="ids, or latest (default: all that are not there)"
    )
    copy.add_argument("--init", action="store_true", help="make that repository if it is not there")
    group = copy.add_argument_group("which snapshots, if none is named")
    group.add_argument("--host", "-H", metavar="NAME", action="append", help="of this or another given host")
    group.add_argument("--tag", metavar="TAG[,TAG]", action="append", help="with all tags of a list")
    group.add_argument("--path", metavar="PATH", action="append", help="of this and all given paths")
    copy.set_defaults(run=lambda arguments: asyncio.run(_copy(arguments)))


async def _copy(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_repository(arguments, new=arguments.init) as opened:
        return await follow.run(opened, "copy", fields(opened, arguments), arguments)


def fields(session: Session, arguments: argparse.Namespace) -> dict[str, Any]:
    """The command that the arguments stand for."""
    command = {
        **session.names(arguments.request),
        **rules.fields(arguments),
        "origin": session.origin,
        "origin_key": session.origin_key,
        "snapshots": arguments.snapshots,
        "hosts": arguments.host,
        "tags": arguments.tag,
        "paths": arguments.path,
        "init": arguments.init,
    }
    return {name: value for name, value in command.items() if value}
