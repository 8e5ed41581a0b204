"""Which services there are, who of them is alive, and what they can do: what their beats tell."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import Any

import msgspec

from snappy.bus.connection import Bus
from snappy.errors import WrongSequence
from snappy.jobs.bucket import Bucket
from snappy.jobs.command import VERSION
from snappy.jobs.messages import ALIVE_SECONDS, Beat
from snappy.jobs.mirror import Mirror

ETAG_DIGITS = 32
REMEMBERED_SECONDS = 24 * 3600.0
"""How long a replica that is dead is listed, while its service has another."""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """The plug-ins that services tell of in their beats, in the services bucket under their etag: most services have
    the same."""

    plugins: dict[str, Any]
    v: int = VERSION


class Roster:
    """Beats, each without its plug-ins, and these once. Methods raise BusUnavailable when JetStream does not answer."""

    def __init__(self, bus: Bus) -> None:
        bucket = Bucket(bus, bus.subjects.services_bucket)
        self._beats: Mirror[Beat] = Mirror(bucket, Beat, pattern="*.*.*")
        self._offers: Mirror[Offer] = Mirror(bucket, Offer, "plugins.", "*")

    async def sync(self) -> None:
        """See what other cores heard."""
        await self._beats.sync()
        await self._offers.sync()

    def start_over(self) -> None:
        """Forget all: the bucket was made anew."""
        self._beats.start_over()
        self._offers.start_over()

    @property
    def beats(self) -> list[Beat]:
        """Of all replicas that were ever seen, by their keys."""
        return [kept.value for _, kept in sorted(self._beats.kept.items())]

    def is_alive(self, role: str, name: str, now: float) -> bool:
        """Whether any replica of the service was heard of lately; ``now`` is Unix seconds."""
        beats = (kept.value for kept in self._beats.kept.values())
        return any((beat.role, beat.service) == (role, name) and now - beat.seen < ALIVE_SECONDS for beat in beats)

    async def heard(self, beat: Beat) -> str:
        """Keep a beat. Returns the etag of its plug-ins; empty where nobody knows them by the one that it has."""
        is_new = self._beats.get(key_of(beat)) is None
        etag = await self._etag_of(beat)
        await self._beats.put(key_of(beat), msgspec.structs.replace(beat, plugins={}, etag=etag))
        if is_new:
            await self._forget_dead(beat)
        return etag

    async def _forget_dead(self, beat: Beat) -> None:
        """Each start of a service is a replica of its own: the bucket must not fill with those that are gone, nor with
        what nobody offers any more."""
        for key, kept in list(self._beats.kept.items()):
            old = kept.value
            if (old.role, old.service) == (beat.role, beat.service) and beat.seen - old.seen > REMEMBERED_SECONDS:
                await _remove(self._beats, key)
        offered = {old.etag for old in self.beats}
        for etag in self._offers.kept.keys() - offered:
            await _remove(self._offers, etag)

    async def _etag_of(self, beat: Beat) -> str:
        if not beat.plugins:
            if beat.etag and self._offers.get(beat.etag) is None:
                await self._offers.sync()
            return beat.etag if self._offers.get(beat.etag) else ""
        etag = hashlib.sha256(msgspec.json.encode(beat.plugins, order="deterministic")).hexdigest()[:ETAG_DIGITS]
        if self._offers.get(etag) is None:
            await self._offers.put(etag, Offer(plugins=beat.plugins))
        return etag

    def replicas(self, role: str, name: str) -> list[Beat]:
        """The beats of a service, with its plug-ins."""
        beats = (kept.value for kept in self._beats.kept.values())
        return [self.with_plugins(beat) for beat in beats if (beat.role, beat.service) == (role, name)]

    def with_plugins(self, beat: Beat) -> Beat:
        """The beat, with the plug-ins that its etag stands for."""
        offer = self._offers.get(beat.etag)
        return msgspec.structs.replace(beat, plugins=offer.value.plugins) if offer else beat

    def names(self, role: str) -> set[str]:
        """The names of the services of a role that were ever seen."""
        return {kept.value.service for kept in self._beats.kept.values() if kept.value.role == role}


async def _remove(mirror: Mirror[Any], key: str) -> None:
    with suppress(WrongSequence):  # another core heard of it
        await mirror.remove(key)


def key_of(beat: Beat) -> str:
    """Of a replica: by it, lists of services are sorted."""
    return f"{beat.role}.{beat.service}.{beat.replica}"
