"""``snappy events watch|subscribe|show|read|unsubscribe``: what happens to jobs, as it happens or once one is back."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from snappy.cli import follow, options, output
from snappy.decoding import converted

if TYPE_CHECKING:
    from snappy.jobs.api_words import Subscription

EXAMPLES = """\
examples:
  snappy events watch --kind backup --event failed    as they happen; what comes while you are away is not told
  snappy events subscribe --event failed              have them kept from now on ...
  snappy events read                                  ... until you read them
  snappy events read --follow --json                  for a program: one JSON object a line, each at least once
"""
PREFIX = "io.snappy."


def register(commands: options.Commands) -> None:
    """Add the commands."""
    events = options.command(
        commands,
        "events",
        "hear what happens to jobs, now or once you are back",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = events.add_subparsers(title="verbs", metavar="VERB", required=True)
    watch = options.command(verbs, "watch", "print events as they happen")
    _register_filter(watch)
    _register_count(watch)
    watch.set_defaults(run=lambda arguments: asyncio.run(_watch(arguments)))
    subscribe = options.command(verbs, "subscribe", "have events kept for you until you read them, 30 days at least")
    _register_filter(subscribe)
    subscribe.add_argument("--oldest", action="store_true", help="from the oldest that the server has (default: now)")
    subscribe.set_defaults(run=lambda arguments: asyncio.run(_subscribe(arguments)))
    read = options.command(verbs, "read", "print the events that were kept for you; then they are read")
    _register_count(read)
    read.add_argument("--follow", "-f", action="store_true", help="stay, and print what comes")
    read.set_defaults(run=lambda arguments: asyncio.run(_read(arguments)))
    show = options.command(verbs, "show", "print what you are subscribed to, and how much is unread")
    show.set_defaults(run=lambda arguments: asyncio.run(_show(arguments)))
    unsubscribe = options.command(verbs, "unsubscribe", "give the subscription up, and what was not read")
    unsubscribe.set_defaults(run=lambda arguments: asyncio.run(_unsubscribe(arguments)))


def _register_filter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kind", type=token, default="*", help="backup, restore, schedule, security, ... (default: any)"
    )
    parser.add_argument("--event", type=token, default="*", help="accepted, started, retrying, succeeded, failed, ...")
    parser.add_argument("--job", type=token, default="*", metavar="ID")


def _register_count(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", "-n", type=_count, default=0, metavar="N", help="leave after so many")


def token(text: str) -> str:
    """A word of an event's subject, or ``*``."""
    from snappy.jobs.api_words import EventToken

    try:
        return converted(text, EventToken)
    except msgspec.ValidationError:
        raise argparse.ArgumentTypeError(f"{text!r} is no word of an event's subject; a-z, 0-9 and '-', or *") from None


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of events")
    return int(text)


async def _watch(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with (
        session.for_questions(arguments) as client,
        client.live(arguments.kind, arguments.event, arguments.job) as events,
    ):
        output.note("listening; interrupt to leave")
        await follow.unless_interrupted(_print(events, arguments), "no longer listening")
    return 0


async def _print(events: AsyncIterator[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """One a line, until they end or ``--count`` of them are told."""
    left = arguments.count
    async for event in events:
        output.result(event, line(event), as_json=arguments.json)
        left -= 1
        if left == 0:
            return


async def _subscribe(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_questions(arguments) as client:
        made = await client.subscriptions.add(
            arguments.kind, arguments.event, arguments.job, start="oldest" if arguments.oldest else "now"
        )
    text = f"subscribed to {made.filter} by the consumer {made.durable} of {made.stream}; `snappy events read` reads it"
    output.result(made, text, as_json=arguments.json)
    return 0


async def _read(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_questions(arguments) as client:
        mine = await client.subscriptions.get()
        events = client.subscriptions.events(mine, limit=arguments.count, wait=arguments.follow)
        await follow.unless_interrupted(_print_all(events, arguments), "no longer reading; what is unread is kept")
    return 0


async def _print_all(events: AsyncGenerator[dict[str, Any], None], arguments: argparse.Namespace) -> None:
    """One that is printed is read, and no other."""
    async with aclosing(events):
        async for event in events:
            output.result(event, line(event), as_json=arguments.json)


async def _show(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_questions(arguments) as client:
        mine = await client.subscriptions.get()
    output.result(mine, _shown(mine), as_json=arguments.json)
    return 0


def _shown(mine: Subscription) -> str:
    return output.table(
        ("EVENTS", "STREAM", "CONSUMER", "UNREAD"), [[mine.filter, mine.stream, mine.durable, f"{mine.unread}"]]
    )


async def _unsubscribe(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_questions(arguments) as client:
        gone = await client.subscriptions.remove()
    output.result(gone, f"not subscribed any more; the consumer {gone.durable} is gone", as_json=arguments.json)
    return 0


def line(event: dict[str, Any]) -> str:
    """An event for a person: when (UTC), what, to which job, who asked for it, and what came of it."""
    when = output.moment(datetime.fromisoformat(event["time"]).timestamp())
    words = [when, event["type"].removeprefix(PREFIX), event["subject"], event.get("submitter", ""), _outcome(event)]
    return "  ".join(word for word in words if word)


def _outcome(event: dict[str, Any]) -> str:
    data = event["data"]
    if "backups" in data:
        return _newest(data)
    if error := data.get("error"):
        return f"{error['code']}: {error['message']}"
    if snapshot := (data.get("result") or {}).get("snapshot"):
        return f"snapshot {snapshot[:8]}"
    return str(data.get("reason", ""))


def _newest(source: dict[str, Any]) -> str:
    """Of a source that is protected."""
    backups, drill = source["backups"], source.get("drill")
    known = [f"newest backup {output.moment(backups[0]['at'])}" if backups else "no backup"]
    known += [f"newest drill {output.moment(drill['at'])}"] if drill else []
    return f"{', '.join(source['paths'])} of {source['source']} at {source['target']}: {', '.join(known)}"
