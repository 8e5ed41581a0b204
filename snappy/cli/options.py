"""Options that several commands share, and the configuration they lead to."""

from __future__ import annotations

import argparse
import os
from typing import Any, NoReturn

from snappy import config
from snappy.cli import output
from snappy.errors import UsageError

Commands = Any
"""What ``ArgumentParser.add_subparsers`` returns; argparse gives it no public name."""


class WrongCommandLine(SystemExit):
    """What the parser ends with, once it told the person: the code is that of a UsageError."""

    def __init__(self, error: UsageError) -> None:
        super().__init__(error.exit_code)
        self.error = error


class Parser(argparse.ArgumentParser):
    """Says what is wrong in a line, rather than below a screen of usage."""

    def error(self, message: str) -> NoReturn:
        error = UsageError(message, hint=f"`{self.prog} --help` says how it is used")
        output.note(f"{self.prog}: error: {error.message}\nhint: {error.hint}")
        raise WrongCommandLine(error)


def common(parser: argparse.ArgumentParser, *, top: bool = False) -> None:
    """Options that may stand before or after the command's name."""
    unset: Any = None if top else argparse.SUPPRESS
    group = parser.add_argument_group("everywhere")
    group.add_argument("--config", metavar="FILE", default=unset, help="the configuration (default: snappy.toml)")
    group.add_argument(
        "--json", action="store_true", default=False if top else unset, help="one JSON object on standard output"
    )
    group.add_argument(
        "--verbose",
        "-v",
        action="store_const",
        const="info",
        dest="log_level",
        default=unset,
        help="the same as --log-level info",
    )
    group.add_argument(
        "--log-level", choices=["debug", "info", "warning", "error"], default=unset, help="what is told on the way"
    )


def command(commands: Commands, name: str, summary: str, **more: Any) -> argparse.ArgumentParser:
    """Add a command with the common options."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary, **more)
    common(parser)
    return parser


def password(parser: argparse.ArgumentParser) -> None:
    """Where the repository's password is found; never the password itself."""
    group = parser.add_argument_group("password (else $SNAPPY_PASSWORD, else a question on the terminal)")
    group.add_argument("--password-file", metavar="FILE")
    group.add_argument("--password-command", metavar="COMMAND", help="run without a shell; its output is the password")


def repository(parser: argparse.ArgumentParser, flag: str, summary: str, *aliases: str, action: Any = "store") -> None:
    """The target, the key and the source service: whom a job names."""
    parser.add_argument(
        flag,
        *aliases,
        action=action,
        dest="place",
        metavar="URL-or-TARGET",
        required=True,
        help=f"{summary}: a URL, a path, or a target's name",
    )
    parser.add_argument("--source", metavar="NAME", help="the source service that does the work")
    parser.add_argument("--key", metavar="NAME", help="which of the source service's passwords (default: default)")
    password(parser)


class _Places(argparse.Action):
    """The first one is the place, all further ones are others."""

    def __call__(self, parser: object, namespace: argparse.Namespace, value: Any, option: str | None = None) -> None:
        if namespace.place is None:
            namespace.place = value
        else:
            namespace.others = [*namespace.others, value]


def repositories(parser: argparse.ArgumentParser) -> None:
    """One repository or several, of which each shall have the backup."""
    repository(parser, "--to", "the repository; again, as TARGET or TARGET:KEY, for others", "--target", action=_Places)
    parser.add_argument(
        "--quorum", metavar="N", type=int, help="with so many of several targets it succeeds (default: all of them)"
    )
    parser.set_defaults(others=[])


def named(text: str) -> dict[str, str]:
    """A further target, ``TARGET`` or ``TARGET:KEY``, as a command has it. Raises UsageError."""
    if is_place(text):
        hint = "start `snappy up` or set nats.url, and name targets; `snappy copy` copies from place to place"
        raise UsageError(f"{text} is a place, and several places need a server", hint=hint)
    target, _, key = text.partition(":")
    return {"target": target, "key": key} if key else {"target": target}


def origin(parser: argparse.ArgumentParser) -> None:
    """The repository that is copied."""
    parser.add_argument(
        "--from",
        dest="origin",
        metavar="URL-or-TARGET",
        required=True,
        help="the repository that has the snapshots: a URL, a path, or a target's name",
    )
    parser.add_argument("--from-key", metavar="NAME", help="which of the source service's passwords opens it")
    group = parser.add_argument_group("its password (else $SNAPPY_FROM_PASSWORD, else a question on the terminal)")
    group.add_argument("--from-password-file", metavar="FILE")
    group.add_argument("--from-password-command", metavar="COMMAND", help="run without a shell")


def browsing(parser: argparse.ArgumentParser) -> None:
    """The repository, and which snapshots of it are meant."""
    repository(parser, "--from", "the repository", "--target")
    parser.add_argument("--no-lock", action="store_true", help="write no lock: a prune meanwhile makes this fail")
    group = parser.add_argument_group("which snapshots (for latest: the newest of them)")
    group.add_argument(
        "--host", "-H", metavar="NAME", action="append", default=[], help="of this or another given host"
    )
    group.add_argument(
        "--tag",
        metavar="TAG[,TAG]",
        action="append",
        default=[],
        help="with all tags of a list",
    )
    group.add_argument("--path", metavar="PATH", action="append", default=[], help="of this and all given paths")


def following(parser: argparse.ArgumentParser) -> None:
    """How a job is followed."""
    parser.add_argument("--request", metavar="ID", help="your own id of the job: a repeat is harmless")
    parser.add_argument("--no-wait", action="store_true", help="print the job's id and leave (with a server alone)")
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress")


def load(arguments: argparse.Namespace) -> config.Config:
    """The configuration that the command line and the environment name."""
    return config.load(arguments.config, os.environ)


def is_place(text: str) -> bool:
    """Whether ``text`` is a URL or a path, rather than a target's name."""
    return "://" in text or text.startswith(("/", ".", "~"))


def as_url(place: str) -> str:
    """A place with a path made absolute; a URL as it is."""
    return place if "://" in place else os.path.abspath(os.path.expanduser(place))


def refuse_with_a_server(arguments: argparse.Namespace) -> None:
    """With a server configured a job names a target and a key, and never where or what they are."""
    names = ("password_file", "password_command", "from_password_file", "from_password_command")
    given = [name for name in names if getattr(arguments, name, None)]
    for place in (arguments.place, getattr(arguments, "origin", "")):
        if is_place(place):
            raise UsageError(
                f"{place} is a place, and a server is configured", hint="name a target; `snappy services` lists them"
            )
    if given:
        flag = "--" + given[0].replace("_", "-")
        raise UsageError(f"{flag} works without a server alone", hint="name a key of the source service with --key")
