"""``snappy core run``, ``snappy source run NAME`` and ``snappy target run NAME``: one role in this process."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING

from snappy import log
from snappy.cli import options
from snappy.errors import UsageError

if TYPE_CHECKING:
    from snappy.serve import Kind

SUMMARIES = {
    "core": "accept jobs, assign them, follow them",
    "source": "do jobs where the data is",
    "target": "keep repositories",
    "audit": "keep the log of all that happened to jobs",
}


def register(commands: options.Commands) -> None:
    """Add the commands; the audit's belongs to its own group."""
    for kind in ("core", "source", "target"):
        group = options.command(commands, kind, SUMMARIES[kind])
        register_run(group.add_subparsers(title="verbs", metavar="VERB", required=True), kind)


def register_run(verbs: options.Commands, kind: Kind) -> None:
    """Add the verb ``run``."""
    run = options.command(verbs, "run", f"run the service: {SUMMARIES[kind]}")
    if kind in ("source", "target"):
        run.add_argument("name", metavar="NAME", help="its name in the configuration")
    run.set_defaults(run=lambda arguments: _run(arguments, kind))


def _run(arguments: argparse.Namespace, kind: Kind) -> int:
    from snappy import serve

    role = serve.Role(kind, getattr(arguments, "name", ""))
    settings = options.load(arguments)
    log.setup(arguments.log_level or settings.log_level)
    if not settings.nats.url and not getattr(serve.section(settings, role), "nats", None):
        raise UsageError("no NATS server is configured", hint="set nats.url, or run all roles with `snappy up`")
    asyncio.run(serve.until_signalled(serve.run(serve.Host(settings), [role])))
    return 0
