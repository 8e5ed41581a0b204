"""A bucket seen through memory.

It is a cache and nothing more: each write is a compare-and-set against the bucket, and :meth:`Mirror.sync` brings what
other cores wrote.
"""

from __future__ import annotations

import asyncio
from typing import Generic, NamedTuple, TypeVar

import msgspec

from snappy import log
from snappy.errors import BusUnavailable
from snappy.jobs.bucket import Bucket, Entry
from snappy.jobs.kinds import read

_log = log.get(__name__)

SYNC_TRIES = 20
SYNC_SECONDS = 0.05
NO_KEY = "none"
"""A key that nothing has: no job is called so."""

Value = TypeVar("Value", bound=msgspec.Struct)


class Kept(NamedTuple, Generic[Value]):
    """A value, and the revision of the bucket that wrote it."""

    value: Value
    revision: int


class Mirror(Generic[Value]):
    """The keys of a bucket that begin with ``start``; keys are given and told without it."""

    def __init__(self, bucket: Bucket, schema: type[Value], start: str = "", pattern: str = ">") -> None:
        self._bucket = bucket
        self._schema = schema
        self._start = start
        self._pattern = pattern
        self._synced = 0
        self.kept: dict[str, Kept[Value]] = {}

    async def sync(self) -> list[str]:
        """See what changed in the bucket since the last time; the keys whose values are news to this process."""
        news = []
        async for entry in self._bucket.changes(self._synced, self._start + self._pattern):
            key = entry.key.removeprefix(self._start)
            if self._is_news(key, entry.revision) and entry.value and self._read(key, entry):
                news.append(key)
            self._synced = entry.revision
        return news

    async def sync_to(self, revision: int) -> None:
        """See at least what was written up to ``revision``: a replica that is behind may answer. Raises
        BusUnavailable if none has it soon."""
        for _ in range(SYNC_TRIES):
            await self.sync()
            if self._synced >= revision:
                return
            await asyncio.sleep(SYNC_SECONDS)
        raise BusUnavailable("the bucket's replicas are behind")

    @property
    def synced(self) -> int:
        """The revision up to which all is known."""
        return self._synced

    def start_over(self) -> None:
        """Forget all: the bucket was made anew, and counts from the beginning."""
        for key in list(self.kept):
            self.forget(key)
        self._synced = 0

    def get(self, key: str) -> Kept[Value] | None:
        """As this process knows it."""
        return self.kept.get(key)

    async def fetch(self, key: str) -> Kept[Value] | None:
        """As the bucket has it now."""
        entry = await self._bucket.get(self._start + key)
        if entry is None:
            self.forget(key)
            return None
        if self._is_news(key, entry.revision):
            self._read(key, entry)
        return self.kept.get(key)

    async def confirm_leader(self) -> None:
        """Raises BusUnavailable where nobody leads the bucket: its copies can be read then, but nothing written."""
        await self._bucket.get(self._start + NO_KEY)

    async def write(self, key: str, value: Value, revision: int) -> Kept[Value]:
        """Replace the value of ``revision`` (0: there is none). Raises WrongSequence if it has changed."""
        new = await self._bucket.update(self._start + key, msgspec.json.encode(value), revision)
        return self._keep(key, Kept(value, new))

    async def put(self, key: str, value: Value) -> Kept[Value]:
        """Whatever is there."""
        return self._keep(key, Kept(value, await self._bucket.put(self._start + key, msgspec.json.encode(value))))

    async def remove(self, key: str) -> None:
        """Take it away, unless another core changed it meanwhile."""
        if (kept := self.kept.get(key)) is not None:
            await self._bucket.remove(self._start + key, kept.revision)
            self.forget(key)

    def _read(self, key: str, entry: Entry) -> bool:
        """A value that cannot be read (of a far newer core, of a hand at the bucket) must not stop all others."""
        try:
            value = read(entry.value, self._schema)
        except msgspec.DecodeError as error:
            _log.error("a value in a bucket cannot be read", key=self._start + key, error=str(error))
            return False
        self._keep(key, Kept(value, entry.revision))
        return True

    def _is_news(self, key: str, revision: int) -> bool:
        known = self.kept.get(key)
        return known is None or known.revision < revision

    def _keep(self, key: str, kept: Kept[Value]) -> Kept[Value]:
        if self._is_news(key, kept.revision):
            self.kept[key] = kept
        return kept

    def forget(self, key: str) -> None:
        """In this process; the bucket keeps it."""
        self.kept.pop(key, None)
