"""What the core answers to ``snappy status``: how each source stands now, and what is wrong around it.

Everybody who may ask sees all of it: events, which all may hear, say as much.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import accumulate, takewhile

import msgspec

from snappy.bus.connection import Bus
from snappy.jobs import protection
from snappy.jobs.answering import Handler
from snappy.jobs.api_words import Reply
from snappy.jobs.freshness import Freshness
from snappy.jobs.messages import ALIVE_SECONDS, JobRecord
from snappy.jobs.promises import Promises
from snappy.jobs.protection import BACKUP, DRILL
from snappy.jobs.protection_words import (
    Absence,
    BackupState,
    Doing,
    DrillState,
    Protection,
    Role,
    SourceStatus,
    Status,
    StatusRequest,
)
from snappy.jobs.repositories import Repositories
from snappy.jobs.store import JobStore
from snappy.jobs.verbs import STATUS_GET, Verb

ENVELOPE_BYTES = 64 << 10
MOST_TOLD = 100
"""Damaged targets, absent services, and jobs at one source."""


class StatusDesk:
    """``clock`` gives Unix seconds."""

    def __init__(
        self,
        bus: Bus,
        store: JobStore,
        freshness: Freshness,
        repositories: Repositories,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self._store = store
        self._freshness = freshness
        self._repositories = repositories
        self._clock = clock

    def handlers(self) -> list[tuple[Verb, Handler]]:
        return [(STATUS_GET, self.get)]

    async def get(self, caller: str, request: msgspec.Struct) -> Reply:
        """Of the sources as many as one message holds."""
        assert isinstance(request, StatusRequest)
        await self._store.roster.sync()
        view, promises = await self._freshness.view()
        known, now = [source for _, source in sorted(view.items())], self._clock()
        doing = self._doing(known)
        wanted = [source for source in known if source.id > request.after]
        found = [_standing(source, promises, doing[source.id], now) for source in wanted]
        told = self._that_fit(found)
        damaged = [state.target for state in await self._repositories.all() if state.state == "damaged"]
        status = Status(at=now, sources=told, damaged=damaged[:MOST_TOLD], absent=self._absent(known, now)[:MOST_TOLD])
        return Reply(status=status, more=len(told) < len(found))

    def _doing(self, known: Iterable[Protection]) -> defaultdict[str, list[Doing]]:
        """The backups and drills that are not over, by the source that they are for."""
        found: defaultdict[str, list[Doing]] = defaultdict(list)
        for record in (stored.value for stored in self._store.records.unfinished()):
            if record.kind == BACKUP:
                for source in protection.of_each(record.command, 0.0):
                    found[source.id].append(_doing(record))
            elif record.kind == DRILL:
                for source in known:
                    if protection.is_meant(record.command, source):
                        found[source.id].append(_doing(record))
        return found

    def _absent(self, known: Iterable[Protection], now: float) -> list[Absence]:
        """The services that a source needs, and of which no replica was heard lately."""
        seen: dict[tuple[Role, str], float] = {}
        for beat in self._store.roster.beats:
            seen[beat.role, beat.service] = max(beat.seen, seen.get((beat.role, beat.service), 0.0))
        needed: set[tuple[Role, str]] = {("source", source.source) for source in known}
        needed |= {("target", source.target) for source in known}
        return [
            Absence(role=role, service=name, seen=seen.get((role, name), 0.0))
            for role, name in sorted(needed)
            if now - seen.get((role, name), 0.0) >= ALIVE_SECONDS
        ]

    def _that_fit(self, found: list[SourceStatus]) -> list[SourceStatus]:
        room = self._bus.nc.max_payload - ENVELOPE_BYTES
        sizes = accumulate(len(msgspec.json.encode(each)) + 1 for each in found)
        return found[: sum(1 for _ in takewhile(lambda size: size <= room, sizes))]


def _doing(record: JobRecord) -> Doing:
    since = record.attempts[-1].started if record.attempts else record.created
    return Doing(job=record.id, kind=record.kind, state=record.state, since=since)


def _standing(source: Protection, promises: Promises, doing: list[Doing], now: float) -> SourceStatus:
    promise = promises.of(source)
    stale = protection.is_stale(source, promise, now)
    unproven = protection.is_unproven(source, promise, now)
    state: BackupState = "stale" if stale else "fresh" if promise.max_age else "unpromised"
    drill_state: DrillState = "stale" if unproven else "proven"
    return SourceStatus(
        known=source,
        state=state if source.backups else "never",
        drill_state=drill_state if source.drill else "unproven",
        is_kept=not (stale or unproven),
        max_age=promise.max_age,
        max_drill_age=promise.max_drill_age,
        upcoming=promises.upcoming(source),
        doing=doing[:MOST_TOLD],
    )
