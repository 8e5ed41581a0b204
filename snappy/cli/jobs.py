"""``snappy jobs list|show|watch|cancel`` and ``snappy services``: questions about what is known and who is alive."""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import TYPE_CHECKING

import msgspec

from snappy.cli import follow, options, output
from snappy.jobs.states import State

if TYPE_CHECKING:
    from snappy.jobs.messages import Beat, JobRecord


def register(commands: options.Commands) -> None:
    """Add the commands."""
    jobs = options.command(commands, "jobs", "list, show, watch and cancel jobs")
    verbs = jobs.add_subparsers(title="verbs", metavar="VERB", required=True)
    _register_list(verbs)
    for name, summary, run in (
        ("show", "print all that is known of a job", _show),
        ("watch", "follow a job to its end", _watch),
        ("cancel", "end a job", _cancel),
    ):
        verb = options.command(verbs, name, summary)
        verb.add_argument("job", metavar="JOB", help="its id")
        verb.set_defaults(run=lambda arguments, run=run: asyncio.run(run(arguments)))
    services = options.command(commands, "services", "list the services that are alive")
    services.add_argument("--all", action="store_true", help="dead ones too")
    services.set_defaults(run=lambda arguments: asyncio.run(_services(arguments)))


def _register_list(verbs: options.Commands) -> None:
    listing = options.command(verbs, "list", "list jobs, the newest first")
    listing.add_argument("--state", choices=[str(state) for state in State], action="append", default=[])
    listing.add_argument("--kind", default="")
    listing.add_argument("--source", default="", metavar="NAME")
    listing.add_argument("--limit", type=int, default=100)
    listing.set_defaults(run=lambda arguments: asyncio.run(_list(arguments)))


async def _list(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_questions(arguments) as client:
        found = await client.list(
            states=[State(state) for state in arguments.state],
            kind=arguments.kind,
            source=arguments.source,
            limit=arguments.limit,
        )
    rows = [_row(record) for record in found]
    text = (
        output.table(("ID", "KIND", "STATE", "CREATED (UTC)", "SOURCE", "TARGET", "RESULT"), rows)
        if rows
        else "no jobs"
    )
    output.result(found, text, as_json=arguments.json)
    return 0


def _row(record: JobRecord) -> list[str]:
    if record.error:
        result = f"{record.error.code}: {record.error.message}"
    else:
        result = f"snapshot {record.result.snapshot[:8]}" if record.result and record.result.snapshot else ""
    targets = [record.command.get("target", ""), *(one["target"] for one in record.command.get("targets") or ())]
    created = output.moment(record.created)
    return [record.id, record.kind, str(record.state), created, record.source, ",".join(targets), result]


async def _show(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_questions(arguments) as client:
        record = await client.get(arguments.job)
    text = msgspec.json.format(msgspec.json.encode(record), indent=2).decode()
    output.result(record, text, as_json=arguments.json)
    return 0


async def _watch(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_questions(arguments) as client:
        return await follow.watch(client, arguments.job, arguments)


async def _cancel(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_questions(arguments) as client:
        record = await client.cancel(arguments.job)
    output.result(record, f"job {record.id} is {_ending(record)}", as_json=arguments.json)
    return 0


def _ending(record: JobRecord) -> str:
    return "being cancelled" if record.state is State.RUNNING else str(record.state)


async def _services(arguments: argparse.Namespace) -> int:
    from snappy.cli import session
    from snappy.frontend import alive

    async with session.for_questions(arguments) as client:
        found = [beat for beat in await client.services() if arguments.all or alive.is_alive(beat)]
    rows = [_service_row(beat) for beat in found]
    text = output.table(("ROLE", "NAME", "REPLICA", "VERSION", "SEEN", "PLUG-INS"), rows) if rows else "no services"
    output.result(found, text, as_json=arguments.json)
    return 0


def _service_row(beat: Beat) -> list[str]:
    seen = f"{max(0.0, time.time() - beat.seen):.0f} s ago"
    return [beat.role, beat.service, beat.replica, beat.version, seen, ", ".join(beat.plugins)]
