"""A NATS micro service (ADR-32, so that ``nats micro ls|info|stats`` shows it) that cannot be made to publish anywhere
but to inboxes.

nats-py's own answers whatever ``reply`` a request carries, and puts the error's text into the answer: a caller who may
ask for a ping could so make a service with large rights publish to ``$JS.API.STREAM.PURGE.…``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nats.aio.msg import Msg
from nats.micro.request import Request
from nats.micro.service import EndpointConfig, Service, ServiceConfig

from snappy import log
from snappy.bus.connection import Bus

_log = log.get(__name__)

REQUEST_INFO = "Nats-Request-Info"
"""What the server adds to a request from another account."""

Handler = Callable[[Msg], Awaitable[None]]


class MicroService(Service):
    """Started by :meth:`begin`, ended by :meth:`stop`. ``metadata`` maps words to texts."""

    def __init__(
        self, bus: Bus, name: str, version: str, *, description: str = "", metadata: dict[str, str] | None = None
    ) -> None:
        super().__init__(bus.nc, ServiceConfig(name, version, description, metadata or {}))

    async def begin(self) -> None:
        await self.start()

    async def add(self, name: str, subject: str, handler: Handler, *, queue: str) -> None:
        """Give what comes on ``subject`` to ``handler``, one at a time. It answers itself, and only after it looked
        at the reply; what it raises is logged and goes to nobody."""

        async def guarded(request: Request) -> None:
            try:
                await handler(request._msg)
            except Exception:
                _log.exception("an endpoint failed", subject=request.subject)

        await self.add_endpoint(EndpointConfig(name, guarded, queue_group=queue, subject=subject))

    async def _handle_ping_request(self, msg: Msg) -> None:
        if _answerable(msg):
            await super()._handle_ping_request(msg)

    async def _handle_info_request(self, msg: Msg) -> None:
        if _answerable(msg):
            await super()._handle_info_request(msg)

    async def _handle_stats_request(self, msg: Msg) -> None:
        if _answerable(msg):
            await super()._handle_stats_request(msg)


def _answerable(message: Msg) -> bool:
    """Who asks a service for its name is not in the subject, so that any inbox must do; headers would be echoed, and
    only the server's own, about the caller, may be."""
    if Bus.reply_allowed(message, "", private=False) and set(message.headers or ()) <= {REQUEST_INFO}:
        return True
    _log.warning("a request with a forged reply was dropped", subject=message.subject, reply=message.reply)
    return False
