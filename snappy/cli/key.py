"""``snappy key list|add|remove|change``: with which passwords a repository opens."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

from snappy.cli import follow, options, rules
from snappy.errors import UsageError

if TYPE_CHECKING:
    from snappy.cli.session import Session

EPILOG = """\
A password is changed without a pause in three steps: add the new one, have every source service use it, remove the
key of the old one. `change` is the first and the last of them at once, for who is the only one.
"""


def register(commands: options.Commands) -> None:
    """Add the commands."""
    key = options.command(
        commands,
        "key",
        "list, add, remove or change the keys of a repository",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = key.add_subparsers(title="actions", metavar="ACTION", required=True)
    _action(actions, "list", "list the keys; * marks the one that opened the repository")
    _new(_action(actions, "add", "let another password open the repository"))
    remove = _action(actions, "remove", "let a password open the repository no more")
    remove.add_argument("id", metavar="ID", help="eight letters of the key's id at least; never the one that is used")
    _new(_action(actions, "change", "put a key with a new password in the place of the one that is used"))


def _action(actions: options.Commands, name: str, summary: str) -> argparse.ArgumentParser:
    aliases = ["passwd"] if name == "change" else []
    action = options.command(actions, name, summary, aliases=aliases)
    options.repository(action, "--from", "the repository", "--target")
    options.following(action)
    rules.register(action)
    action.set_defaults(action=name, run=lambda arguments: asyncio.run(_run(arguments)))
    return action


def _new(action: argparse.ArgumentParser) -> None:
    ways = action.add_argument_group("the new password (else $SNAPPY_NEW_PASSWORD, else a question on the terminal)")
    ways.add_argument("--new-password-file", metavar="FILE")
    ways.add_argument("--new-password-command", metavar="COMMAND")
    group = action.add_argument_group("the new key")
    group.add_argument("--new-key", metavar="NAME", help="with a server: which of the source service's passwords")
    group.add_argument("--user", metavar="NAME", help="who made it (default: the user of this or that process)")
    group.add_argument("--host", metavar="NAME", help="where it was made (default: this or that host)")


async def _run(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_repository(arguments) as opened:
        return await follow.run(opened, "key", fields(opened, arguments), arguments)


def fields(session: Session, arguments: argparse.Namespace) -> dict[str, Any]:
    """The command that the arguments stand for. Raises UsageError."""
    command = {
        **session.names(arguments.request),
        **rules.fields(arguments),
        "action": arguments.action,
        "new_key": _new_key(session, arguments) if _makes(arguments) else None,
        "id": getattr(arguments, "id", None),
        "user": getattr(arguments, "user", None),
        "host": getattr(arguments, "host", None),
    }
    return {name: value for name, value in command.items() if value is not None}


def _makes(arguments: argparse.Namespace) -> bool:
    return arguments.action in ("add", "change")


def _new_key(session: Session, arguments: argparse.Namespace) -> str:
    if session.embedded:
        from snappy.cli import embedded

        return embedded.NEXT_KEY
    if arguments.new_password_file or arguments.new_password_command or not arguments.new_key:
        hint = "name a key of its configuration with --new-key"
        raise UsageError("a new password is the source service's to know", hint=hint)
    return str(arguments.new_key)
