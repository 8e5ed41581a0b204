"""``snappy backup --stdin`` and ``--stdin-from-command``: one file that this command is given.

It works only where this command is the source service too. What it reads stands in the service's settings, so that no
job can ask another service to run a program.
"""

from __future__ import annotations

import argparse
from typing import Any

import msgspec

from snappy.config import Config, SourceService
from snappy.errors import UsageError


def is_meant(arguments: argparse.Namespace) -> bool:
    """Whether the command line asks for it."""
    return bool(getattr(arguments, "stdin", False) or getattr(arguments, "stdin_from_command", False))


def plugin_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Raises UsageError for a command line that wants something else as well."""
    if arguments.stdin and arguments.stdin_from_command:
        raise UsageError("--stdin and --stdin-from-command exclude each other")
    if arguments.stdin and arguments.paths:
        raise UsageError("with --stdin there are no paths", hint="back them up by another command")
    if arguments.stdin_from_command and not arguments.paths:
        raise UsageError("there is no command to run", hint="write it behind --, with its arguments")
    if arguments.plugin != "files" or arguments.option:
        raise UsageError("standard input has no use for --plugin and --option")
    return {"filename": arguments.stdin_filename} if arguments.stdin_filename else {}


def made_available(settings: Config, arguments: argparse.Namespace) -> Config:
    """The same configuration, of a service that may read what the command line says."""
    if not is_meant(arguments):
        return settings
    given = {"command": arguments.paths} if arguments.stdin_from_command else {}
    service = SourceService(plugins={"stdin": {"default": given}})
    return msgspec.structs.replace(settings, source={"--stdin": service, **settings.source})


def refuse_with_a_service(arguments: argparse.Namespace) -> None:
    """Raises UsageError: who does the work is elsewhere, and has another standard input."""
    if is_meant(arguments):
        raise UsageError(
            "standard input can be read without a server alone",
            hint="name the repository's place, or configure the plug-in command at the source service",
        )
