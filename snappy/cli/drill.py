"""``snappy drill``."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

from snappy.cli import follow, options, rules

if TYPE_CHECKING:
    from snappy.cli.session import Session


def register(commands: options.Commands) -> None:
    """Add the command."""
    drill = options.command(commands, "drill", "prove that a snapshot can be restored, and measure how long it takes")
    drill.add_argument("snapshot", metavar="SNAPSHOT", nargs="?", default="latest", help="an id, or latest (default)")
    options.repository(drill, "--target", "the repository", "--from")
    options.following(drill)
    rules.register(drill)
    group = drill.add_argument_group("what is drilled")
    group.add_argument("--host", "-H", metavar="NAME", help="with latest: the newest of this host")
    group.add_argument("--path", metavar="PATH", action="append", default=[], help="with latest: of these paths")
    group.add_argument("--sample", metavar="PART", help="files at random, larger ones likelier: 5%%, or 1G at most")
    group.add_argument("--seed", metavar="N", type=int, help="draw the sample that this number drew before")
    group.add_argument("--program", metavar="NAME", help="run this drill program of the source service on it")
    drill.set_defaults(run=lambda arguments: asyncio.run(_drill(arguments)))


async def _drill(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_repository(arguments) as opened:
        return await follow.run(opened, "drill", fields(opened, arguments), arguments)


def fields(session: Session, arguments: argparse.Namespace) -> dict[str, Any]:
    """The command that the arguments stand for. Raises UsageError."""
    command = {
        **session.names(arguments.request),
        **rules.fields(arguments),
        "snapshot": arguments.snapshot,
        "host": arguments.host,
        "paths": [session.place(path) for path in arguments.path],
        "sample": arguments.sample,
        "seed": arguments.seed,
        "program": arguments.program,
    }
    return {name: value for name, value in command.items() if value is not None}
