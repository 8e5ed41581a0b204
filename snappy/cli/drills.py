"""``snappy drills``: when each source was last proven to come back, how much of it, and how long that took."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING

from snappy.cli import options, output
from snappy.cli.status import paths

if TYPE_CHECKING:
    from snappy.jobs.protection_words import Good, Mishap, SourceStatus

HEAD = ("SOURCE", "HOST", "TARGET", "PROVEN", "STATE", "TOOK", "FILES", "SIZE", "SAMPLE", "FAILED", "PATHS")


def register(commands: options.Commands) -> None:
    """Add the command."""
    drills = options.command(commands, "drills", "say how long ago each source was last proven to be restorable")
    drills.set_defaults(run=lambda arguments: asyncio.run(_drills(arguments)))


async def _drills(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_questions(arguments) as client:
        status = await client.status()
    output.result(status.sources, text(status.sources, status.at), as_json=arguments.json)
    return 0


def text(sources: list[SourceStatus], now: float) -> str:
    """A line a source, those first that were proven longest ago, or never."""
    order = sorted(sources, key=lambda each: each.known.drill.at if each.known.drill else 0.0)
    return output.table(HEAD, [_row(source, now) for source in order]) if order else "no sources"


def _row(status: SourceStatus, now: float) -> list[str]:
    source, drill = status.known, status.known.drill
    return [
        source.source,
        source.host or "-",
        source.target,
        f"{output.age(now - drill.at)} ago" if drill else "never",
        status.drill_state,
        *(_proof(drill) if drill else ["-"] * 4),
        _failed(source.drill_mishap, drill, now),
        paths(source.paths) or source.plugin,
    ]


def _proof(drill: Good) -> list[str]:
    return [output.duration(drill.seconds), str(drill.files), output.size(drill.bytes), drill.sample or "all"]


def _failed(mishap: Mishap | None, drill: Good | None, now: float) -> str:
    """Of the newest drill, if it did."""
    if mishap is None or (drill and drill.at > mishap.at):
        return "-"
    return f"{output.age(now - mishap.at)} ago: {mishap.code}"
