"""``snappy audit query|verify|run``."""

from __future__ import annotations

import argparse
import asyncio

import msgspec

from snappy.cli import options, output, services
from snappy.errors import Damaged


def register(commands: options.Commands) -> None:
    """Add the commands."""
    audit = options.command(commands, "audit", "the log of all that happened to jobs")
    verbs = audit.add_subparsers(title="verbs", metavar="VERB", required=True)
    query = options.command(verbs, "query", "print entries, the newest last")
    query.add_argument("--job", default="", metavar="ID")
    query.add_argument("--submitter", default="", metavar="NAME")
    query.add_argument("--limit", type=int, default=100)
    query.set_defaults(run=lambda arguments: asyncio.run(_query(arguments)))
    verify = options.command(verbs, "verify", "check that nothing in the log was changed or lost")
    verify.set_defaults(run=lambda arguments: asyncio.run(_verify(arguments)))
    services.register_run(verbs, "audit")


async def _query(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_questions(arguments) as client:
        found = await client.audit(job=arguments.job, submitter=arguments.submitter, limit=arguments.limit)
    lines = "\n".join(msgspec.json.encode(entry).decode() for entry in found)
    output.result(found, lines or "no entries", as_json=arguments.json)
    return 0


async def _verify(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_questions(arguments) as client:
        state = await client.audit_verify()
    if state.fault:
        raise Damaged(f"the audit log is damaged: {state.fault}")
    output.result(state, f"{state.entries} entries, all whole; head {state.head}", as_json=arguments.json)
    return 0
