"""``snappy restore``."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

from snappy.cli import follow, options, rules
from snappy.cli.backup import parse_option
from snappy.errors import UsageError

if TYPE_CHECKING:
    from snappy.cli.session import Session


def register(commands: options.Commands) -> None:
    """Add the command."""
    restore = options.command(commands, "restore", "put a snapshot, or part of it, somewhere")
    restore.add_argument("snapshot", metavar="SNAPSHOT", help="an id, its first letters, or latest")
    options.repository(restore, "--from", "the repository")
    restore.add_argument("--to", metavar="PATH", help="the folder or URL to restore to")
    options.following(restore)
    rules.register(restore)
    group = restore.add_argument_group("what is restored")
    group.add_argument("--include", metavar="PATTERN", action="append", default=[], help="only these, as in .gitignore")
    group.add_argument("--exclude", metavar="PATTERN", action="append", default=[], help="not these")
    group.add_argument(
        "--overwrite",
        choices=("always", "if-changed", "if-newer", "never"),
        help="what is there: compare and mend it, the same but trust size and time, mend what is older, or leave it",
    )
    group.add_argument("--ownership-by-name", action="store_true", help="find users and groups by name, not by number")
    group.add_argument("--host", metavar="NAME", help="with latest: the newest of this host")
    group.add_argument("--path", metavar="PATH", action="append", default=[], help="with latest: of these paths")
    group.add_argument("--plugin", metavar="NAME", default="files", help="the source plug-in (default: files)")
    group.add_argument("--option", metavar="NAME=VALUE", action="append", default=[], help="an option of the plug-in")
    restore.set_defaults(run=lambda arguments: asyncio.run(_restore(arguments)))


def plugin_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The plug-in's options but for the place; the service validates them. Raises UsageError."""
    given = dict(map(parse_option, arguments.option))
    if arguments.plugin == "files" and not (arguments.to or "to" in given):
        raise UsageError("there is no place to restore to", hint="name a folder or a URL with --to")
    return given


async def _restore(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    plugin_options(arguments)
    async with session.for_repository(arguments) as opened:
        return await follow.run(opened, "restore", fields(opened, arguments), arguments)


def fields(session: Session, arguments: argparse.Namespace) -> dict[str, Any]:
    """The command that the arguments stand for. Raises UsageError."""
    given = plugin_options(arguments)
    if arguments.to:
        given["to"] = session.place(arguments.to)
    if arguments.ownership_by_name:
        given["ownership_by_name"] = True
    if arguments.overwrite:
        given["overwrite"] = arguments.overwrite
    command = {
        **session.names(arguments.request),
        **rules.fields(arguments),
        "snapshot": arguments.snapshot,
        "host": arguments.host,
        "paths": [session.place(path) for path in arguments.path],
        "plugin": arguments.plugin,
        "options": given,
        "include": arguments.include,
        "exclude": arguments.exclude,
    }
    return {name: value for name, value in command.items() if value is not None}
