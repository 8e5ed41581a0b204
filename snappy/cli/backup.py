"""``snappy init`` and ``snappy backup``."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from snappy.cli import follow, options, rules, stdin
from snappy.decoding import from_json
from snappy.errors import UsageError

if TYPE_CHECKING:
    from snappy.cli.session import Session

COMPRESSIONS = ("off", "fastest", "default", "better", "max")


def register(commands: options.Commands) -> None:
    """Add the two commands."""
    init = options.command(commands, "init", "make an empty repository")
    options.repository(init, "--to", "where the repository is made")
    options.following(init)
    rules.register(init)
    init.set_defaults(run=lambda arguments: asyncio.run(_init(arguments)))
    backup = options.command(commands, "backup", "back up paths into a repository")
    backup.add_argument("paths", metavar="PATH", nargs="*", help="folders, files or URLs")
    options.repositories(backup)
    options.following(backup)
    rules.register(backup)
    _what(backup)
    _how(backup)
    backup.set_defaults(run=lambda arguments: asyncio.run(_backup(arguments)))


def _what(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is backed up")
    group.add_argument("--exclude", metavar="PATTERN", action="append", default=[], help="as in .gitignore")
    group.add_argument("--exclude-file", metavar="FILE", action="append", default=[], help="patterns, one a line")
    group.add_argument("--exclude-if-present", metavar="NAME", action="append", default=[])
    group.add_argument("--exclude-caches", action="store_true", help="leave out folders with a CACHEDIR.TAG")
    group.add_argument("--one-file-system", "-x", action="store_true", help="do not enter other file systems")
    group.add_argument("--stdin", action="store_true", help="what comes on standard input, as one file")
    group.add_argument("--stdin-from-command", action="store_true", help="what `-- COMMAND ARGUMENT...` writes")
    group.add_argument("--stdin-filename", metavar="NAME", help="how that file is called (default: stdin)")
    group.add_argument("--plugin", metavar="NAME", default="files", help="the source plug-in (default: files)")
    group.add_argument(
        "--also",
        metavar="PLUGIN[:JSON]",
        action="append",
        default=[],
        help="another source at the same moment, with its options as a JSON object",
    )
    group.add_argument(
        "--option",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="an option of the plug-in; VALUE may be JSON",
    )


def _how(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it is kept")
    group.add_argument(
        "--hook", metavar="NAME", action="append", default=[], help="what the source service runs before and after"
    )
    group.add_argument("--init", action="store_true", help="make the repository if it is not there")
    group.add_argument("--tag", metavar="TAG", action="append", default=[])
    group.add_argument("--host", metavar="NAME", help="the host name in the snapshot")
    group.add_argument("--parent", metavar="SNAPSHOT", help="compare with this one (default: the newest of its kind)")
    group.add_argument("--force", action="store_true", help="read every file, whatever the parent says")
    group.add_argument("--compression", choices=COMPRESSIONS, default="default")


async def _init(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_repository(arguments, new=True) as opened:
        command = opened.names(arguments.request) | rules.fields(arguments)
        return await follow.run(opened, "init", command, arguments)


async def _backup(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    chosen = plugin_options(arguments)
    async with session.for_repository(arguments, new=arguments.init) as opened:
        return await follow.run(opened, "backup", fields(opened, arguments, chosen), arguments)


def fields(session: Session, arguments: argparse.Namespace, chosen: dict[str, Any]) -> dict[str, Any]:
    """The command that the arguments stand for, with the plug-in's options as they were chosen. Raises UsageError."""
    if "paths" in chosen:
        chosen["paths"] = [session.place(path) for path in chosen["paths"]]
    command = {
        **session.names(arguments.request),
        **rules.fields(arguments),
        **_sources("stdin" if stdin.is_meant(arguments) else arguments.plugin, chosen, arguments.also),
        "hooks": arguments.hook,
        "init": arguments.init,
        "force": arguments.force,
        "parent": arguments.parent,
        "host": arguments.host,
        "tags": arguments.tag,
        "compression": arguments.compression,
        "targets": [options.named(text) for text in arguments.others],
        "quorum": arguments.quorum,
    }
    return {name: value for name, value in command.items() if value is not None}


def _sources(plugin: str, chosen: dict[str, Any], also: list[str]) -> dict[str, Any]:
    if not also:
        return {"plugin": plugin, "options": chosen}
    return {"sources": [{"plugin": plugin, "options": chosen}, *map(_parse_source, also)]}


def _parse_source(text: str) -> dict[str, Any]:
    """``plugin:{...}``. Raises UsageError."""
    plugin, found, value = text.partition(":")
    try:
        options = from_json(value, dict[str, Any]) if found else {}
    except msgspec.DecodeError as error:
        raise UsageError(f"--also {text!r} is not PLUGIN:OPTIONS, with the options as a JSON object") from error
    return {"plugin": plugin, "options": options}


def plugin_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The plug-in's options as the command line gives them; the service validates them. Raises UsageError."""
    if stdin.is_meant(arguments):
        return stdin.plugin_options(arguments)
    patterns = [*arguments.exclude, *(line for file in arguments.exclude_file for line in _lines(file))]
    given = {
        "paths": arguments.paths,
        "exclude": patterns,
        "exclude_if_present": arguments.exclude_if_present,
        "exclude_caches": arguments.exclude_caches,
        "one_file_system": arguments.one_file_system,
    }
    found = {name: value for name, value in given.items() if value} | dict(map(parse_option, arguments.option))
    if arguments.plugin == "files" and not found.get("paths"):
        raise UsageError("there is nothing to back up", hint="name a path")
    return found


def parse_option(text: str) -> tuple[str, Any]:
    """``name=value``, where a value that is no JSON is a string. Raises UsageError."""
    name, found, value = text.partition("=")
    if not found or not name:
        raise UsageError(f"--option {text!r} is not NAME=VALUE")
    try:
        return name, from_json(value)
    except msgspec.DecodeError:
        return name, value


def _lines(file: str) -> list[str]:
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the patterns in {file} cannot be read: {error}") from error
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
