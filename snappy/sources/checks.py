"""What a source service does for a check: the repository is opened and locked, and what was found becomes words."""

from __future__ import annotations

import asyncio
import time

from snappy.errors import Damaged
from snappy.jobs.messages import Result
from snappy.jobs.upkeep import CheckCommand
from snappy.repository.checker import Checker, CheckResult, what_bars
from snappy.repository.portion import EVERYTHING, Portion
from snappy.repository.repo import Repository
from snappy.sources import telling
from snappy.sources.allow import Ask
from snappy.sources.workshop import Task, Workshop, locked_if_allowed


def prepare(command: CheckCommand, asks: Ask) -> Task:
    """Raises BadOptions."""
    portion = Portion.parse(command.read_data_subset) if command.read_data_subset else None
    if command.read_data:
        portion = EVERYTHING
    name = "all" if command.read_data else command.read_data_subset or ""
    return Task(asks, lambda shop: asyncio.to_thread(_check, shop, portion, name))


def _check(shop: Workshop, portion: Portion | None, name: str) -> Result:
    """Raises Damaged, with the result in its details, where anything is. No cache of the index is of use here."""
    began = time.monotonic()
    with _opened(shop) as repository, locked_if_allowed(repository, shop):
        checker = Checker(repository, progress=shop.progress, cancelled=shop.hold.check, workers=shop.workers)
        done = checker.check(portion)
        result = _result(done, repository, name, time.monotonic() - began)
    failure = done.failure()
    if failure:
        failure.details["result"] = result
        raise failure
    return result


def _opened(shop: Workshop) -> Repository:
    try:
        return Repository.open(shop.store, shop.password)
    except Damaged as error:
        found = what_bars(shop.store, shop.password)
        raise Damaged(
            error.message,
            hint=error.hint,
            result=Result(findings=telling.findings(found), finding_count=len(found)),
        ) from error


def _result(done: CheckResult, repository: Repository, portion: str, seconds: float) -> Result:
    return Result(
        repository=repository.id,
        portion=portion,
        snapshots=done.snapshots,
        directories=done.trees,
        packs=done.packs,
        packs_read=done.packs_read,
        bytes_read=done.bytes_read,
        seconds=seconds,
        findings=telling.findings(done.findings),
        finding_count=done.damage + done.hints,
    )
