"""What a source service does to the keys of a repository: passwords are its own, and never leave it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from snappy.errors import KeyNotFound, WrongPassword
from snappy.jobs.messages import Result
from snappy.jobs.result_words import KeyRow, Keys
from snappy.jobs.upkeep import KeyCommand
from snappy.repository.key_ring import KeyRing, ListedKey
from snappy.repository.patience import alone
from snappy.repository.repo import Repository
from snappy.sources import telling
from snappy.sources.allow import Ask
from snappy.sources.workshop import Task, Workshop, locked, locked_if_allowed

KEYS_TOLD = 100


def prepare(command: KeyCommand, asks: Ask) -> Task:
    """Nothing of it can be wrong before the repository is open."""
    work = WORK[command.action]
    return Task(asks, lambda shop: asyncio.to_thread(_timed, work, shop, command))


def _timed(work: Work, shop: Workshop, command: KeyCommand) -> Result:
    began = time.monotonic()
    with _opened(shop, command) as repository:
        done = work(repository, shop, command)
        return Result(repository=repository.id, seconds=time.monotonic() - began, keys=done)


def _opened(shop: Workshop, command: KeyCommand) -> Repository:
    """A change that died at its very end has taken the old password away."""
    try:
        return Repository.open(shop.store, shop.password)
    except WrongPassword:
        if command.action != "change" or shop.hold.attempt == 1:
            raise
        return Repository.open(shop.store, shop.passwords(command.new_key or ""))


def _list(repository: Repository, shop: Workshop, command: KeyCommand) -> Keys:
    with locked_if_allowed(repository, shop):
        return _told(repository.keys())


def _add(repository: Repository, shop: Workshop, command: KeyCommand) -> Keys:
    """An attempt that was lost may have added it."""
    password = shop.passwords(command.new_key or "")
    with locked(repository, shop):
        ring = repository.keys()
        added = ring.other(password) if shop.hold.attempt > 1 else ""
        added = added or ring.add(password, user=command.user or "", host=command.host or "")
        return _told(ring, added=added)


def _remove(repository: Repository, shop: Workshop, command: KeyCommand) -> Keys:
    prefix = command.id or ""
    with alone(lambda exclusive: locked(repository, shop, exclusive=exclusive), shop.hold.check):
        ring = repository.keys()
        try:
            removed = ring.remove(prefix)
        except KeyNotFound:
            if shop.hold.attempt == 1:  # later it is one that an attempt that was lost has removed
                raise
            removed = prefix
        return _told(ring, removed=removed)


def _change(repository: Repository, shop: Workshop, command: KeyCommand) -> Keys:
    password = shop.passwords(command.new_key or "")
    with locked(repository, shop):
        ring = repository.keys()
        old = ring.current
        if shop.hold.attempt > 1 and password != shop.password and ring.is_current(password):
            return _told(ring, added=old)
        added = ring.change(password, user=command.user or "", host=command.host or "")
        return _told(ring, added=added, removed=old)


def _told(ring: KeyRing, *, added: str = "", removed: str = "") -> Keys:
    keys = list(ring)
    return Keys(added=added, removed=removed, keys=[_row(key) for key in keys[:KEYS_TOLD]], count=len(keys))


def _row(key: ListedKey) -> KeyRow:
    """Whoever can write to the storage can write what a key file says in clear."""
    user, host, created = map(telling.shortened, (key.file.username, key.file.hostname, key.file.created))
    return KeyRow(id=key.name, user=user, host=host, created=created, current=key.current)


Work = Callable[[Repository, Workshop, KeyCommand], Keys]
WORK: dict[str, Work] = {"list": _list, "add": _add, "remove": _remove, "change": _change}
