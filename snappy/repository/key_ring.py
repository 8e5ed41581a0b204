"""The keys that open one repository: listed, added, removed, and one put in the place of another.

The key that opened the repository is never removed but for one that was seen to open it too: whatever dies and
whoever else is at it, one stays.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from snappy import log
from snappy.errors import Damaged, KeyInUse, KeyNotFound, NotFound, WrongPassword
from snappy.repository.format import Random
from snappy.repository.keys import (
    DEFAULT_COST,
    KeyFile,
    ScryptCost,
    StoredKey,
    create_key,
    find_keys,
    open_key,
    read_key,
)
from snappy.repository.store import FileType, Store

_LOG = log.get(__name__)


class ListedKey(NamedTuple):
    """A key file, and whether it opened the repository."""

    name: str
    file: KeyFile
    current: bool


class KeyRing:
    """``current`` is the key that opened the repository; ``cost`` is that of new ones. Everything raises
    :class:`snappy.errors.StorageError`."""

    def __init__(
        self, store: Store, current: StoredKey, *, random: Random = os.urandom, cost: ScryptCost = DEFAULT_COST
    ) -> None:
        self._store = store
        self._current = current
        self._random = random
        self._cost = cost

    def __iter__(self) -> Iterator[ListedKey]:
        """By name. One that is damaged is logged and left out: it opens nothing."""
        for name, size in self._store.list(FileType.KEY):
            try:
                yield ListedKey(name, read_key(self._store, name, size), name == self._current.name)
            except NotFound:
                continue  # removed meanwhile
            except Damaged as error:
                _LOG.warning("a key cannot be read", key=name, reason=error.message)

    def add(self, password: str, *, user: str = "", host: str = "") -> str:
        """Let another password open the repository; the value is the name of its key, which was seen to do so.
        ``user`` and ``host`` stand in it, by default those of this process. Raises Damaged where it does not open."""
        master = self._current.master
        made = create_key(self._store, password, master, user=user, host=host, random=self._random, cost=self._cost)
        size = dict(self._store.list(FileType.KEY)).get(made.name)
        if size is None or not self._opens(open_key(self._store, made.name, size, password)):
            raise Damaged(f"the new key {made.name[:8]} does not open the repository")
        return made.name

    def other(self, password: str) -> str:
        """The name of a key with that password, but for the one that opened the repository; empty if there is none."""
        return next((name for name in self._opened_by(password) if name != self._current.name), "")

    def is_current(self, password: str) -> bool:
        """Whether the key that opened the repository has that password."""
        return self._current.name in self._opened_by(password)

    def remove(self, prefix: str) -> str:
        """Remove the key whose name begins so; the value is the name. For who has an exclusive lock: of two that each
        remove the other's key, the second finds that its own is gone, and leaves the last one.

        Raises KeyNotFound, and KeyInUse for the key that opened the repository.
        """
        names = [name for name, _ in self._store.list(FileType.KEY)]
        found = [name for name in names if name.startswith(prefix)]
        if len(found) != 1:
            raise KeyNotFound(f"{len(found) or 'no'} keys have a name that begins with {prefix!r}")
        if found[0] == self._current.name:
            raise KeyInUse()
        if self._current.name not in names:
            raise WrongPassword("the key that opened the repository was removed meanwhile")
        self._take_away(found[0])
        return found[0]

    def change(self, password: str, *, user: str = "", host: str = "") -> str:
        """Put a key with another password in the place of the one that opened the repository; the value is its name.
        One that is there already, as an attempt leaves it that died here, is used."""
        added = self.other(password) or self.add(password, user=user, host=host)
        self._take_away(self._current.name)
        self._current = StoredKey(added, self._current.master)
        return added

    @property
    def current(self) -> str:
        """The name of the key that opened the repository, or that took its place."""
        return self._current.name

    def _opened_by(self, password: str) -> list[str]:
        try:
            return [key.name for key in find_keys(self._store, password) if self._opens(key)]
        except (WrongPassword, Damaged):
            return []

    def _opens(self, key: StoredKey) -> bool:
        return key.master.to_json() == self._current.master.to_json()

    def _take_away(self, name: str) -> None:
        with suppress(NotFound):  # somebody else did, or we did and the answer was lost
            self._store.remove(FileType.KEY, name)
