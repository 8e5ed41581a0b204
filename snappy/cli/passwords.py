"""The repository's password on the command line: from a file, a command, the environment or a question."""

from __future__ import annotations

import argparse
import getpass
import os
import sys

from snappy import secrets
from snappy.config import Secret
from snappy.errors import UsageError

VARIABLE = "SNAPPY_PASSWORD"


def find(arguments: argparse.Namespace, *, new: bool = False) -> str:
    """The password; asked for twice on the terminal when it is ``new``. Raises UsageError when there is none."""
    if arguments.password_file and arguments.password_command:
        raise UsageError("--password-file and --password-command exclude one another")
    secret = _secret(arguments)
    password = secrets.read(secret) if secret else _ask(new)
    if not password:
        raise UsageError("the password is empty")
    return password


def _secret(arguments: argparse.Namespace) -> Secret | None:
    if arguments.password_file:
        return Secret(file=arguments.password_file)
    if arguments.password_command:
        return Secret(command=arguments.password_command)
    return Secret(env=VARIABLE) if VARIABLE in os.environ else None


def _ask(new: bool) -> str:
    if not sys.stdin.isatty():
        raise UsageError("there is no password", hint=f"give --password-file, --password-command or ${VARIABLE}")
    password = getpass.getpass("repository password: ")
    if new and getpass.getpass("once more: ") != password:
        raise UsageError("the two passwords differ")
    return password
