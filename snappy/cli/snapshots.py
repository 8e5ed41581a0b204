"""``snappy snapshots``."""

from __future__ import annotations

import argparse
import asyncio
from datetime import datetime
from typing import Any

from snappy.cli import options, output


def register(commands: options.Commands) -> None:
    """Add the command."""
    snapshots = options.command(commands, "snapshots", "list the snapshots of a repository")
    options.repository(snapshots, "--from", "the repository")
    snapshots.set_defaults(run=lambda arguments: asyncio.run(_snapshots(arguments)))


async def _snapshots(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_repository(arguments) as opened:
        found = await opened.client.snapshots(opened.source, opened.target, opened.key)
    output.result(found, _shown(found), as_json=arguments.json)
    return 0


def _shown(found: list[dict[str, Any]]) -> str:
    if not found:
        return "no snapshots"
    return output.table(("ID", "TIME (UTC)", "HOST", "TAGS", "PATHS", "SIZE"), [_row(each) for each in found])


def _row(snapshot: dict[str, Any]) -> list[str]:
    """What restic shows in the same order; each snapshot's time may be of another zone."""
    processed = (snapshot.get("summary") or {}).get("total_bytes_processed")
    tags = [tag for tag in snapshot.get("tags") or [] if not tag.startswith("snappy-job:")]
    return [
        snapshot["short_id"],
        output.moment(datetime.fromisoformat(snapshot["time"]).timestamp()),
        snapshot.get("hostname", ""),
        ",".join(tags),
        ", ".join(snapshot.get("paths") or []),
        "" if processed is None else output.size(processed),
    ]
