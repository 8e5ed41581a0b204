"""``snappy status``: what is protected, how fresh, how proven, what failed, and what is next, on one screen."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING

import msgspec

from snappy.cli import options, output

if TYPE_CHECKING:
    from snappy.jobs.protection_words import Good, SourceStatus, Status

HEAD = ("SOURCE", "HOST", "TARGET", "BACKUP", "PROMISED", "STATE", "PROVEN", "FAILED", "NEXT", "PATHS")
BROKEN = 13
"""The exit code where a promise is broken, or a repository damaged; no error has it."""
LETTERS = 40
"""Of several paths."""


def register(commands: options.Commands) -> None:
    """Add the command."""
    status = options.command(commands, "status", "say what is protected, how fresh and how proven it is, what failed")
    status.add_argument("--stale", action="store_true", help="only sources of which a promise is broken")
    status.set_defaults(run=lambda arguments: asyncio.run(_status(arguments)))


async def _status(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_questions(arguments) as client:
        status = await client.status()
    is_kept = all(source.is_kept for source in status.sources) and not status.damaged
    shown = [source for source in status.sources if not (arguments.stale and source.is_kept)]
    answer = msgspec.structs.replace(status, sources=shown)
    output.result(answer, text(status, shown), as_json=arguments.json)
    return 0 if is_kept else BROKEN


def text(status: Status, shown: list[SourceStatus]) -> str:
    """The screen, with those of the sources that are to be shown."""
    order = sorted(shown, key=lambda each: (each.known.source, each.known.target, each.known.paths))
    lines = [output.table(HEAD, [_row(source, status.at) for source in order])] if order else []
    lines += [f"damaged: the repository of {target}; `snappy check --target {target}`" for target in status.damaged]
    lines += [f"absent: {each.role} {each.service}, {_seen(each.seen, status.at)}" for each in status.absent]
    return "\n".join([*lines, _summary(status)])


def _summary(status: Status) -> str:
    count = len(status.sources)
    broken = sum(not source.is_kept for source in status.sources)
    promised = sum(bool(source.max_age or source.max_drill_age) for source in status.sources)
    kept = f"promises for {promised}, " + (f"of which {broken} broken" if broken else "all kept")
    return f"{count} {'source' if count == 1 else 'sources'}, {kept if promised else 'no promises'}"


def _row(status: SourceStatus, now: float) -> list[str]:
    source = status.known
    newest = source.backups[0] if source.backups else None
    promised = output.age(status.max_age) if status.max_age else "-"
    state = status.state if status.is_kept else status.state.upper()
    return [
        source.source,
        source.host or "-",
        source.target,
        _ago(newest.at, now) + ("!" if newest.warnings else "") if newest else "never",
        promised,
        state,
        _proven(source.drill, status, now),
        _failed(status, now),
        _next(status, now),
        paths(source.paths) or source.plugin,
    ]


def _proven(drill: Good | None, status: SourceStatus, now: float) -> str:
    promised = f" of {output.age(status.max_drill_age)}" if status.max_drill_age else ""
    took = f" in {output.duration(drill.seconds)}" if drill else ""
    return f"{_ago(drill.at, now)}{promised}{took}" if drill else f"never{promised}"


def _failed(status: SourceStatus, now: float) -> str:
    """What went wrong since it last went well."""
    source, mishap = status.known, status.known.mishap
    if mishap is None:
        return "-"
    better = source.drill if mishap.kind == "drill" else source.backups[0] if source.backups else None
    if better and better.at > mishap.at:
        return "-"
    return f"{mishap.kind} {_ago(mishap.at, now)}: {mishap.code}"


def _next(status: SourceStatus, now: float) -> str:
    if status.doing:
        return f"{status.doing[0].kind} {status.doing[0].state}"
    upcoming = status.upcoming
    return f"in {output.age(upcoming.at - now)} ({upcoming.schedule})" if upcoming else "-"


def paths(found: list[str]) -> str:
    """The first of them, and how many more there are."""
    told = found[:1]
    while len(told) < len(found) and len(", ".join([*told, found[len(told)]])) <= LETTERS:
        told = found[: len(told) + 1]
    return ", ".join(told) + (f", +{len(found) - len(told)}" if len(told) < len(found) else "")


def _ago(moment: float, now: float) -> str:
    return f"{output.age(now - moment)} ago"


def _seen(seen: float, now: float) -> str:
    return f"last heard {_ago(seen, now)}" if seen else "never heard"
