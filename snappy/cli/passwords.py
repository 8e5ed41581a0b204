"""The repository's password on the command line: from a file, a command, the environment or a question."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from typing import NamedTuple

from snappy import secrets
from snappy.config import Secret
from snappy.errors import UsageError

VARIABLE, FROM_VARIABLE, NEXT_VARIABLE = "SNAPPY_PASSWORD", "SNAPPY_FROM_PASSWORD", "SNAPPY_NEW_PASSWORD"


def find(arguments: argparse.Namespace, *, new: bool = False) -> str:
    """The password; asked for twice on the terminal when it is ``new``. Raises UsageError when there is none."""
    file, command = arguments.password_file, arguments.password_command
    return _found(_Ways("--", VARIABLE, "repository password: ", file, command), new=new)


def of_origin(arguments: argparse.Namespace) -> str:
    """The password of the repository that is copied. Raises UsageError when there is none."""
    file, command = arguments.from_password_file, arguments.from_password_command
    return _found(_Ways("--from-", FROM_VARIABLE, "password of the repository to copy: ", file, command))


def find_next(arguments: argparse.Namespace) -> str:
    """The password that a repository shall open with, too; asked for twice. Raises UsageError when there is none."""
    if arguments.new_key:
        raise UsageError("--new-key needs a source service", hint="without a server, give --new-password-file")
    file, command = arguments.new_password_file, arguments.new_password_command
    return _found(_Ways("--new-", NEXT_VARIABLE, "new password: ", file, command), new=True)


class _Ways(NamedTuple):
    prefix: str
    variable: str
    question: str
    file: str | None
    command: str | None


def _found(ways: _Ways, *, new: bool = False) -> str:
    if ways.file and ways.command:
        raise UsageError(f"{ways.prefix}password-file and {ways.prefix}password-command exclude one another")
    secret = _secret(ways)
    password = secrets.read(secret) if secret else _ask(ways, new)
    if not password:
        raise UsageError("the password is empty")
    return password


def _secret(ways: _Ways) -> Secret | None:
    if ways.file:
        return Secret(file=ways.file)
    if ways.command:
        return Secret(command=ways.command)
    return Secret(env=ways.variable) if ways.variable in os.environ else None


def _ask(ways: _Ways, new: bool) -> str:
    if not sys.stdin.isatty():
        flags = f"{ways.prefix}password-file, {ways.prefix}password-command"
        raise UsageError("there is no password", hint=f"give {flags} or ${ways.variable}")
    password = getpass.getpass(ways.question)
    if new and getpass.getpass("once more: ") != password:
        raise UsageError("the two passwords differ")
    return password
