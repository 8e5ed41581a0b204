"""``snappy audit query|export|verify|run``."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from snappy.cli import options, output, rules, services
from snappy.decoding import converted
from snappy.errors import Corrupt, Damaged, UsageError


def register(commands: options.Commands) -> None:
    """Add the commands."""
    audit = options.command(commands, "audit", "the log of all that happened to jobs")
    verbs = audit.add_subparsers(title="verbs", metavar="VERB", required=True)
    query = options.command(verbs, "query", "print entries, the newest last")
    _register_filter(query)
    query.add_argument("--limit", type=int, default=100)
    query.set_defaults(run=lambda arguments: asyncio.run(_query(arguments)))
    export = options.command(verbs, "export", "write entries with their hashes, one JSON object a line")
    _register_filter(export)
    export.add_argument("--output", metavar="FILE", help="default: standard output")
    export.set_defaults(run=lambda arguments: asyncio.run(_export(arguments)))
    verify = options.command(verbs, "verify", "check that nothing in the log was changed or lost")
    verify.add_argument("--export", metavar="FILE", help="check what `export` wrote; this needs no server")
    verify.set_defaults(run=_verify)
    services.register_run(verbs, "audit")


def _register_filter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--job", default="", metavar="ID")
    parser.add_argument("--submitter", default="", metavar="NAME")
    parser.add_argument("--kind", default="", metavar="KIND", help="backup, restore, schedule, security, alarm, ...")
    parser.add_argument("--since", metavar="TIME", type=_ago, help="2027-01-01T02:00:00Z, or so long ago: 90m")
    parser.add_argument("--until", metavar="TIME", type=_ago, help="entries before that moment")


def _ago(text: str) -> float:
    """Unix seconds: a time as RFC 3339 has it, or a length of time before now."""
    now = datetime.now().astimezone().timestamp()
    if rules.LENGTH.match(text):
        return now - rules.length(text)
    return datetime.fromisoformat(rules.moment(text)).timestamp()


async def _query(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_questions(arguments) as client:
        found = await client.audit(**_filter(arguments), limit=arguments.limit)
    lines = "\n".join(msgspec.json.encode(entry).decode() for entry in found)
    output.result(found, lines or "no entries", as_json=arguments.json)
    return 0


def _filter(arguments: argparse.Namespace) -> dict[str, Any]:
    texts: dict[str, Any] = {name: getattr(arguments, name) for name in ("job", "submitter", "kind")}
    return texts | {name: getattr(arguments, name) or 0.0 for name in ("since", "until")}


async def _export(arguments: argparse.Namespace) -> int:
    from snappy.cli import session
    from snappy.jobs.audit_words import AuditFilter

    async with session.for_questions(arguments) as client:
        lines = client.audit_export(converted(_filter(arguments), AuditFilter))
        if arguments.output:
            await _write(lines, Path(arguments.output))
        else:
            async for line in lines:
                print(line)
    return 0


async def _write(lines: AsyncIterator[str], path: Path) -> None:
    """Whole or not at all, and for its owner alone."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: ASYNC230 (a line at a time)
            async for line in lines:
                file.write(line + "\n")
        draft.replace(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)


def _verify(arguments: argparse.Namespace) -> int:
    return _verify_export(arguments) if arguments.export else asyncio.run(_verify_log(arguments))


def _verify_export(arguments: argparse.Namespace) -> int:
    from snappy.jobs import extract

    try:
        found = extract.check(Path(arguments.export))
    except OSError as error:
        raise UsageError(f"{arguments.export} cannot be read: {error.strerror}") from error
    except Corrupt as error:
        raise Damaged(error.message) from error
    left_out = "none" if found.whole else "some"
    text = f"{found.entries} entries, all whole, {left_out} left out; head {found.head}"
    output.result(found._asdict(), text, as_json=arguments.json)
    return 0


async def _verify_log(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_questions(arguments) as client:
        state = await client.audit_verify()
    if state.fault:
        raise Damaged(f"the audit log is damaged: {state.fault}")
    text = f"{state.entries} entries, all whole; head {state.head}"
    if state.alarm:
        text += f"\n{state.alarms} alarms, the newest: {state.alarm}"
    output.result(state, text, as_json=arguments.json)
    return 0
