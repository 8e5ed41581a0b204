"""The target service: opens the backing storage, guards it, and serves it on the bus to whoever brings a grant."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from nats.errors import Error as NatsError

from snappy import __version__, config, log, secrets
from snappy.bandwidth import Timetable
from snappy.bus.connection import Bus
from snappy.bus.fileserver import FileServer, Gate, Limits
from snappy.bus.grants import Grant, GrantChecker
from snappy.bus.micro import MicroService
from snappy.bus.throttle import Throttles
from snappy.errors import UsageError
from snappy.jobs.heart import Heart
from snappy.jobs.messages import Beat
from snappy.targets.chores import keep as keep_chores
from snappy.targets.opening import open_target

_log = log.get(__name__)


class TargetService:
    """One replica of one target. ``core_public_key`` takes the place of the one that the settings name.
    ``private_inboxes``: the NATS server authenticates, and each user has an inbox of its own."""

    def __init__(
        self,
        bus: Bus,
        name: str,
        settings: config.TargetService,
        *,
        core_public_key: str = "",
        private_inboxes: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bus, self.name, self._settings, self._clock = bus, name, settings, clock
        self._private = private_inboxes
        self._key = core_public_key or _configured_key(name, settings)
        self._started = clock()
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Serve until cancelled. Raises UsageError for storage that cannot be opened."""
        settings = self._settings
        files = await asyncio.to_thread(open_target, settings.url, settings.storage_options, settings.rights)
        server = FileServer(
            self._bus,
            files,
            target=self.name,
            replica=settings.replica,
            gate=grant_gate(GrantChecker(self._key), self.name, self._clock),
            private_inboxes=self._private,
            limits=Limits(idle_seconds=settings.idle_seconds),
            throttles=Throttles(Timetable.parse(settings.bandwidth)),
            direct=settings.direct,
            clock=self._clock,
        )
        metadata = {"service": self.name, "replica": server.replica, "rights": settings.rights}
        micro = MicroService(
            self._bus, "snappy-target", __version__, description=f"target service {self.name}", metadata=metadata
        )
        await server.start()
        chores = asyncio.create_task(keep_chores(files.fs, files.root))
        try:
            await micro.begin()
            heart = self._heart(server.replica)
            await heart.first()
            self.ready.set()
            await heart.keep()
        finally:
            chores.cancel()
            await server.close()
            await _stop(micro)

    def _heart(self, replica: str) -> Heart:
        beat = Beat(service=self.name, replica=replica, role="target", version=__version__, started=self._started)
        return Heart(self._bus, beat)


def grant_gate(checker: GrantChecker, target: str, clock: Callable[[], float]) -> Gate:
    """A gate that lets through what a grant of the core allows at this time."""

    def gate(grant: str, caller: str, right: str) -> Grant:
        return checker.check(grant, caller=caller, target=target, right=right, now=clock())

    return gate


def _configured_key(name: str, settings: config.TargetService) -> str:
    if settings.core_public_key is None:
        raise UsageError(
            f"target {name!r} has no core_public_key", hint="`snappy keygen` makes the core's pair of keys"
        )
    return secrets.read(settings.core_public_key)


async def _stop(micro: MicroService) -> None:
    try:
        await micro.stop()
    except (NatsError, OSError) as error:
        _log.debug("the micro service did not stop cleanly", reason=str(error))
