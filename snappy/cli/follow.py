"""Submits a job, follows it to its end, and says how it went."""

from __future__ import annotations

import argparse
import asyncio
import signal
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from snappy.cli import display, drilled, keyed, output, pruned, retained, spread
from snappy.errors import Interrupted, JobCancelled, SnappyError, UsageError
from snappy.jobs.states import Event, State

if TYPE_CHECKING:
    from snappy.cli.session import Session
    from snappy.frontend.api import Client
    from snappy.jobs.messages import JobRecord, Result
    from snappy.jobs.result_words import Repaired

Done = TypeVar("Done")

WITH_WARNINGS = 3
FINDINGS_LOGGED = 1000
"""A source service keeps no more of a check's findings."""
CANCEL_SECONDS = 30.0
"""How long a job that was interrupted may take to end cleanly."""
SAME_WISH_SECONDS = 1.0


async def run(session: Session, kind: str, command: dict[str, Any], arguments: argparse.Namespace) -> int:
    """Submit the job and follow it; the value is the exit code."""
    if arguments.no_wait and session.embedded:
        raise UsageError("--no-wait needs a server: without one the job ends with this command")
    with interrupts() as interrupted:
        record = await session.client.submit(kind, command)
        if arguments.no_wait:
            output.result(record, record.id, as_json=arguments.json)
            return 0
        if record.event == Event.ANNOUNCED:
            output.note(_announced(record))
        record = await to_the_end(session.client, record, display.choose(quiet=arguments.quiet), interrupted)
    return tell(record, as_json=arguments.json, interrupted=interrupted.is_set())


def _announced(record: JobRecord) -> str:
    return (
        f"job {record.id} is announced, and deletes nothing before {output.moment(record.not_before)} UTC\n"
        "hint: an interrupt cancels it; --no-wait leaves it alone, and `snappy jobs watch` follows it"
    )


async def to_the_end(
    client: Client, record: JobRecord, shown: display.Display, interrupted: asyncio.Event
) -> JobRecord:
    """Show the job's progress until it is over; when ``interrupted`` is set, cancel it first."""
    helpers = [
        asyncio.create_task(_show(client, record.id, shown)),
        asyncio.create_task(_tell_turns(client, record.id)),
        asyncio.create_task(_cancel_when(interrupted, client, record.id)),
    ]
    try:
        return await client.wait(record.id)
    finally:
        for helper in helpers:
            helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        shown.close()


async def _show(client: Client, job: str, shown: display.Display) -> None:
    async for progress in client.progress(job):
        shown.show(progress)


async def _tell_turns(client: Client, job: str) -> None:
    async for event in client.events(job):
        if event.data.state is State.RETRYING:
            output.note(retry(event.data, time.time()))
        elif event.data.state is State.COPYING and event.data.result:
            output.note(spread.where(event.data.result.stored))


def retry(record: JobRecord, now: float) -> str:
    """Why a job is tried again and when, and what may help meanwhile. ``now`` is in Unix seconds."""
    error = next((attempt.error for attempt in reversed(record.attempts) if attempt.error), None)
    wait = output.duration(max(0.0, record.not_before - now))
    told = f"trying again in {wait}: {error.message if error else 'the worker fell silent'}"
    return f"{told}\nhint: {error.hint}" if error and error.hint else told


async def _cancel_when(interrupted: asyncio.Event, client: Client, job: str) -> None:
    await interrupted.wait()
    output.note("cancelling the job; interrupt again to leave at once")
    await client.cancel(job)


@contextmanager
def interrupts() -> Iterator[asyncio.Event]:
    """An event that the first SIGINT or SIGTERM sets; a second one, or too long a wait, cancels the running task.

    A second signal within a moment is the same wish: a terminal and ``timeout`` each send it to all processes.
    """
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    task = asyncio.current_task()
    assert task is not None
    deadline: list[asyncio.TimerHandle] = []

    def interrupt() -> None:
        if not event.is_set():
            event.set()
            deadline.append(loop.call_later(CANCEL_SECONDS, task.cancel))
        elif loop.time() > deadline[0].when() - CANCEL_SECONDS + SAME_WISH_SECONDS:
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    try:
        yield event
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        for timer in deadline:
            timer.cancel()


def tell(record: JobRecord, *, as_json: bool, interrupted: bool = False) -> int:
    """Print how the job ended; the value is the exit code."""
    if record.state is State.SUCCEEDED and record.result:
        return _tell_success(record, record.result, as_json)
    error = _why(record, interrupted)
    if as_json:
        output.result(record, "", as_json=True)
    if record.result:
        _tell_findings(record.result)
        if record.result.drill:
            drilled.tell_faults(record.result.drill)
    output.fault(error, as_json=False)
    return error.exit_code


def _why(record: JobRecord, interrupted: bool) -> SnappyError:
    if record.state is State.CANCELLED:
        name = f"job {record.id} was cancelled"
        return Interrupted(name) if interrupted else JobCancelled(f"{name} by {record.cancel or 'somebody'}")
    if record.error:
        return record.error.to_error()
    return SnappyError(f"job {record.id} is {record.state}")


def _tell_success(record: JobRecord, result: Result, as_json: bool) -> int:
    if record.kind == "forget":
        text = retained.told(result, dry_run=bool(record.command.get("dry_run")))
        text += f"\n{pruned.told(result.prune, result.seconds)}" if result.prune else ""
        output.result(retained.as_restic(result), text, as_json=as_json)
    elif record.kind == "key" and result.keys and record.command.get("action") == "list":
        output.result(keyed.as_restic(result.keys), keyed.table(result.keys), as_json=as_json)
    else:
        output.result(record, summary(record.kind, result), as_json=as_json)
    if result.kept_until:
        until = output.moment(result.kept_until)
        output.note(f"what was deleted shows no more, but the storage keeps it, up to {until} (object lock)")
    if missing := spread.missing(result.stored):
        output.note(f"warning: {missing}")
    _tell_findings(result)
    for warning in result.warnings:
        output.note(f"warning: {warning.path}: {warning.message}")
    if result.warning_count > len(result.warnings):
        output.note(f"warning: and {result.warning_count - len(result.warnings)} more")
    return WITH_WARNINGS if result.warning_count else 0


def _tell_findings(result: Result) -> None:
    for found in result.findings:
        word = "damage" if found.damage else "hint"
        output.note(f"{word}: {found.kind}: {found.object} {found.id}: {found.message}\n  {found.remedy}")
    if result.finding_count > len(result.findings):
        output.note(f"and {result.finding_count - len(result.findings)} more, {_where_named(result.finding_count)}")


def _where_named(findings: int) -> str:
    if findings <= FINDINGS_LOGGED:
        return "which the service's log names"
    return f"of which the service's log names those up to the {FINDINGS_LOGGED}th"


def summary(kind: str, result: Result) -> str:
    """What a job that succeeded did, in a line or two."""
    if kind == "init":
        return f"made the repository {result.repository[:8]}"
    if kind == "check":
        return _summary_of_check(result)
    if kind == "copy":
        return _summary_of_copy(result)
    if result.drill:
        return drilled.told(result.drill, result)
    if result.prune:
        return pruned.told(result.prune, result.seconds)
    if result.keys:
        return keyed.told(result.keys)
    if result.repair:
        return _summary_of_repair(result.repair, result)
    rate = result.bytes_processed / result.seconds if result.seconds else 0.0
    amount = f"{output.size(result.bytes_processed)} in {output.duration(result.seconds)} ({output.size(rate)}/s)"
    counts = f"{result.files} files, {result.directories} directories, {amount}"
    if kind == "restore":
        return f"restored snapshot {result.snapshot[:8]}: {counts}"
    files = f"{result.files_new} new, {result.files_changed} changed, {result.files_unmodified} unmodified"
    sizes = f"read {output.size(result.bytes_read)}, stored {output.size(result.bytes_stored)}"
    text = f"snapshot {result.snapshot[:8]}: {counts}\n{files}; {sizes}"
    return f"{text}\n{spread.where(result.stored)}" if result.stored else text


def _summary_of_check(result: Result) -> str:
    there = f"{result.snapshots} snapshots, {result.directories} different directories, {result.packs} packs"
    read = f"read {result.packs_read} packs, {output.size(result.bytes_read)}"
    return f"no damage in {result.repository[:8]}: {there}; {read} in {output.duration(result.seconds)}"


def _summary_of_copy(result: Result) -> str:
    there = result.snapshots - result.copied
    sizes = f"{output.size(result.bytes_new)} new, stored {output.size(result.bytes_stored)}"
    return f"copied {result.copied} snapshots, {there} were there: {sizes}; {output.duration(result.seconds)}"


def _summary_of_repair(done: Repaired, result: Result) -> str:
    if not (done.written or done.removed or result.finding_count):
        return f"nothing to repair in {result.repository[:8]}: {done.what}, {output.duration(result.seconds)}"
    verb = "would repair" if done.dry_run else "repaired"
    written, removed = f"new {done.what}: {done.written}", f"files removed: {done.removed}"
    return f"{verb} {result.repository[:8]}: {written}; {removed}; {output.duration(result.seconds)}"


async def watch(client: Client, job: str, arguments: argparse.Namespace) -> int:
    """Follow a job that somebody submitted; an interrupt leaves it alone."""
    following = to_the_end(client, await client.get(job), display.choose(quiet=False), asyncio.Event())
    return tell(await unless_interrupted(following, "no longer watching; the job goes on"), as_json=arguments.json)


async def unless_interrupted(work: Coroutine[Any, Any, Done], left: str) -> Done:
    """What ``work`` comes to; SIGINT or SIGTERM ends it in good order. Raises Interrupted, saying ``left``."""
    with interrupts() as interrupted:
        tasks = ended, _ = asyncio.create_task(work), asyncio.create_task(interrupted.wait())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
    if ended.cancelled():
        raise Interrupted(left)
    return ended.result()
