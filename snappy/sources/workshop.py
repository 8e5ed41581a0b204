"""What every job works with at a source service, and how it locks the repository."""

from __future__ import annotations

import getpass
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import msgspec

from snappy import log
from snappy.errors import AccessDenied, JobCancelled, SnappyError, UnknownKey
from snappy.jobs.messages import LockRef, Result
from snappy.repository.locks import Confirm, Lock, LockJob, LockOwner, Named
from snappy.repository.progress import Progress
from snappy.repository.repo import Repository
from snappy.repository.store import Store
from snappy.repository.team import NO_WORKERS, Workers
from snappy.sources import base
from snappy.sources.allow import Ask
from snappy.sources.hold import Hold

JOB_TAG = "snappy-job:"
"""Begins the tag by which a later attempt knows the snapshot of an earlier one."""

_log = log.get(__name__)


class Origin(msgspec.Struct, frozen=True):
    """The repository that is copied."""

    store: Store
    password: str


def no_other(key: str) -> str:
    """The :attr:`Workshop.passwords` of a service with one password."""
    raise UnknownKey(f"there is no key {key!r}")


class Workshop(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt works with."""

    hold: Hold
    store: Store
    password: str
    progress: Progress
    origin: Origin | None = None
    """Of a copy."""
    owner: str
    """The lock's host name: ``snappy.<service>.<replica>``."""
    host: str
    """The snapshot's host name, unless the command gives one."""
    index_cache: Path | None = None
    """Where what index files say is kept from job to job."""
    workers: Workers = NO_WORKERS
    """The worker processes that a backup or a check may start."""
    passwords: Callable[[str], str] = no_other
    """The password of another of the service's keys. Raises UnknownKey, and UsageError where it cannot be read."""


class Task(msgspec.Struct, frozen=True):
    """A command that is known to be possible: what it asks for, and how it is done."""

    asks: Ask
    work: Callable[[Workshop], Awaitable[Result]]


def locked(
    repository: Repository, shop: Workshop, *, exclusive: bool = False, settle_later: bool = False
) -> AbstractContextManager[Lock]:
    """A lock in the name of the attempt, beside other shared ones unless it is exclusive."""
    confirm = _confirm(shop.hold)
    return repository.lock(owner=_owner(shop), exclusive=exclusive, confirm=confirm, settle_later=settle_later)


@contextmanager
def locked_if_allowed(repository: Repository, shop: Workshop) -> Iterator[None]:
    """Who may only read cannot leave a lock, and may work all the same: a prune meanwhile can make that fail, and
    nothing worse."""
    with ExitStack() as held:
        try:
            held.enter_context(locked(repository, shop))
        except AccessDenied:
            _log.info("reading without a lock, for lack of the right to write one")
        yield


@contextmanager
def listed_if_cancelled(repository: Repository) -> Iterator[None]:
    """The next job finds what a cancelled one stored. One that was lost cannot say: its next attempt looks."""
    try:
        yield
    except JobCancelled:
        try:
            repository.list_stored()
        except SnappyError as error:
            _log.warning("what the cancelled job stored was not listed", reason=error.message)
        raise


@contextmanager
def interrupting(waiting: object, hold: Hold) -> Iterator[None]:
    """Once the attempt is over, a plug-in that waits for something hears of it."""
    if not isinstance(waiting, base.Interruptible):
        yield
        return
    told = threading.Event()

    def listen(_: bytes) -> None:
        if hold.ended and not told.is_set():
            told.set()
            waiting.interrupt()

    forget = hold.watch(listen)
    try:
        yield
    finally:
        forget()


def _owner(shop: Workshop) -> LockOwner:
    return LockOwner(
        hostname=shop.owner,
        username=user_name(),
        pid=os.getpid(),
        uid=os.getuid(),
        gid=os.getgid(),
        job=LockJob(job=shop.hold.job.id, attempt=shop.hold.attempt),
    )


def _confirm(hold: Hold) -> Confirm:
    """Ask the core about the locks of other jobs."""

    def confirm(left: list[Named]) -> AbstractContextManager[set[str]]:
        return hold.removing(
            [
                LockRef(name=name, job=lock.snappy.job, attempt=lock.snappy.attempt, refreshed=lock.time.timestamp())
                for name, lock in left
                if lock.snappy
            ]
        )

    return confirm


def user_name() -> str:
    """In a container the number may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
