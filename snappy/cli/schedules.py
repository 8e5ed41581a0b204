"""``snappy schedule add|list|show|pause|resume|remove|run-now``: jobs that are submitted when their time comes."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from snappy import durations
from snappy.cli import backup, check, copy, drill, follow, forget, options, output, prune, restore
from snappy.errors import UsageError
from snappy.jobs.states import State

if TYPE_CHECKING:
    from snappy.cli.session import Session
    from snappy.jobs.schedule_words import Schedule

EXAMPLES = """\
examples:
  snappy schedule add nightly --cron '0 2 * * *' --time-zone Europe/Berlin --jitter 10m --max-age 26h \\
      -- backup /srv --source site1 --to vault
  snappy schedule add often --every 6h --missed skip -- backup /srv --source site1 --to vault
  snappy schedule add proof --every 7d -- drill --sample 5% --source site1 --target vault
  snappy schedule add back --at 2027-01-01T02:00:00Z -- restore latest --from vault --to /srv/back
"""
JOBS = {
    "backup": backup,
    "restore": restore,
    "check": check,
    "drill": drill,
    "forget": forget,
    "prune": prune,
    "copy": copy,
}


def register(commands: options.Commands) -> None:
    """Add the commands."""
    schedule = options.command(commands, "schedule", "have jobs submitted when their time comes")
    verbs = schedule.add_subparsers(title="verbs", metavar="VERB", required=True)
    _register_add(verbs)
    listing = options.command(verbs, "list", "list schedules")
    listing.set_defaults(run=lambda arguments: asyncio.run(_list(arguments)))
    for name, summary, run in (
        ("show", "print all that is known of a schedule", _show),
        ("pause", "let it rest until it is resumed", _pause),
        ("resume", "let it go on from its next time", _resume),
        ("remove", "remove it; jobs that it led to go on", _remove),
        ("run-now", "submit its job once, beside the others", _run_now),
    ):
        verb = options.command(verbs, name, summary)
        verb.add_argument("name", metavar="NAME")
        verb.set_defaults(run=lambda arguments, run=run: asyncio.run(run(arguments)))


def _register_add(verbs: options.Commands) -> None:
    add = options.command(
        verbs, "add", "add a schedule", epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add.add_argument("name", metavar="NAME", help="a-z, 0-9 and '-', 40 at most")
    when = add.add_mutually_exclusive_group(required=True)
    when.add_argument("--cron", metavar="PATTERN", help="minute hour day-of-month month day-of-week")
    when.add_argument("--every", metavar="TIME", type=seconds, help="for example 6h, 90m or 1d12h")
    when.add_argument("--at", metavar="TIME", help="once, for example 2027-01-01T02:00:00Z")
    add.add_argument("--time-zone", metavar="NAME", default="", help="for --cron (default: UTC)")
    add.add_argument("--jitter", metavar="TIME", type=seconds, default=0, help="each run waits a part of it")
    add.add_argument("--missed", choices=["run-once", "skip"], default="run-once", help="if its time passed unserved")
    add.add_argument(
        "--max-age", metavar="TIME", type=seconds, default=0, help="promise: the newest good one is no older (26h)"
    )
    add.add_argument("--replace", action="store_true", help="take the place of your schedule of that name")
    add.add_argument("job", metavar="-- JOB", nargs="+", help=f"{', '.join(JOBS)}: one of them, with its options")
    add.set_defaults(run=lambda arguments: asyncio.run(_add(arguments)))


def seconds(text: str) -> int:
    """``6h``, ``90m``, ``1d12h``, as seconds."""
    try:
        return durations.seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


async def _add(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    kind, job = parse_job(arguments)
    if options.is_place(job.place) and not options.load(arguments).nats.url:
        raise UsageError(
            f"{job.place} is a place, and a schedule outlives this command",
            hint="start `snappy up` or set nats.url, and name a target",
        )
    async with session.for_repository(job) as opened:
        schedule = await opened.client.schedules.add(
            arguments.name,
            kind,
            _fields(kind, opened, job),
            cron=arguments.cron,
            time_zone=arguments.time_zone,
            every=arguments.every,
            at=arguments.at,
            jitter=arguments.jitter,
            missed=arguments.missed,
            max_age=arguments.max_age,
            replace=arguments.replace,
        )
    output.result(schedule, f"schedule {schedule.name}: next {_next(schedule)}", as_json=arguments.json)
    return 0


def parse_job(arguments: argparse.Namespace) -> tuple[str, argparse.Namespace]:
    """The kind of job behind ``--``, and its own command's arguments."""
    parser = argparse.ArgumentParser(prog=f"snappy schedule add {arguments.name} --", add_help=False)
    commands = parser.add_subparsers(dest="kind", metavar="|".join(JOBS), required=True)
    for group in JOBS.values():
        group.register(commands)
    common = argparse.Namespace(config=arguments.config, json=arguments.json, log_level=arguments.log_level)
    words = [word for place, word in enumerate(arguments.job) if place or word != "--"]
    job = parser.parse_args(words, common)
    if job.kind not in JOBS:
        raise UsageError(f"{job.kind!r} is nothing to do again and again", hint=f"schedule one of: {', '.join(JOBS)}")
    return job.kind, job


def _fields(kind: str, session: Session, job: argparse.Namespace) -> dict[str, Any]:
    if kind == "backup":
        return backup.fields(session, job, backup.plugin_options(job))
    fields: dict[str, Any] = JOBS[kind].fields(session, job)
    return fields


async def _list(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_questions(arguments) as client:
        found = await client.schedules.list()
    rows = [
        [schedule.name, schedule.kind, schedule.state, _when(schedule), _next(schedule), schedule.last_job]
        for schedule in found
    ]
    text = output.table(("NAME", "KIND", "STATE", "WHEN", "NEXT", "LAST JOB"), rows) if rows else "no schedules"
    output.result(found, text, as_json=arguments.json)
    return 0


def _when(schedule: Schedule) -> str:
    if schedule.cron:
        return f"{schedule.cron} {schedule.time_zone}"
    return f"every {output.duration(schedule.every)}" if schedule.every else f"at {output.moment(schedule.at)}"


def _next(schedule: Schedule) -> str:
    return f"{output.moment(schedule.next_slot)} UTC" if schedule.next_slot else "never"


async def _show(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_questions(arguments) as client:
        schedule = await client.schedules.get(arguments.name)
    text = msgspec.json.format(msgspec.json.encode(schedule), indent=2).decode()
    output.result(schedule, text, as_json=arguments.json)
    return 0


async def _pause(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_questions(arguments) as client:
        schedule = await client.schedules.pause(arguments.name)
    output.result(schedule, f"schedule {schedule.name} is {schedule.state}", as_json=arguments.json)
    return 0


async def _resume(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_questions(arguments) as client:
        schedule = await client.schedules.resume(arguments.name)
    output.result(schedule, f"schedule {schedule.name}: next {_next(schedule)}", as_json=arguments.json)
    return 0


async def _remove(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_questions(arguments) as client:
        schedule = await client.schedules.remove(arguments.name)
    output.result(schedule, f"schedule {schedule.name} is removed", as_json=arguments.json)
    return 0


async def _run_now(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_questions(arguments) as client:
        record = await client.schedules.run_now(arguments.name)
    if record.state is State.REJECTED:
        return follow.tell(record, as_json=arguments.json)
    output.result(record, record.id, as_json=arguments.json)
    return 0
