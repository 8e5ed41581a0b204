"""``snappy up``: the chosen roles of a configuration, with a server of their own where none is configured."""

from __future__ import annotations

import argparse

from snappy import log
from snappy.cli import options


def register(commands: options.Commands) -> None:
    """Add the command."""
    up = options.command(commands, "up", "run the roles of the configuration, all of them or those named")
    up.add_argument("roles", metavar="ROLE", nargs="*", help="core, audit, source:NAME or target:NAME")
    up.add_argument("--split", action="store_true", help="a process for each role, which knows its own secrets alone")
    up.set_defaults(run=_up)


def _up(arguments: argparse.Namespace) -> int:
    from snappy.cli import roles

    settings = options.load(arguments)
    log.setup(arguments.log_level or settings.log_level)
    roles.run(settings, arguments.roles, split=arguments.split)
    return 0
