"""Requests that are waited for on one connection: one inbox subscription, and one future for each.

nats-py's own ``request`` waits out its timeout when the server's permissions refuse it or the connection goes away,
and forgets to forget a request that could not be sent. Here each such wait ends at once, with the reason.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from snappy.bus import wire
from snappy.bus.pieces import Payload
from snappy.bus.subjects import hint_of
from snappy.errors import BusError, BusUnavailable

STATUS = "Status"
NO_RESPONDERS = "503"
JETSTREAM = "$JS.API."
RELOAD_LOOKS, LOOK_SECONDS = 20, 0.05
"""While a server reads its configuration again (to let somebody in), nobody answers for its JetStream."""
PROBE_SECONDS = 2.0
Probe = Callable[[], Awaitable[None]]
"""Awaited every :data:`PROBE_SECONDS` that bring no answer; what it raises ends the wait."""


class Waiters:
    """Futures, each with the subject whose refusal ends it; the empty subject stands for the login."""

    def __init__(self) -> None:
        self._subjects: dict[asyncio.Future[Any], str] = {}

    def expect(self, subject: str) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._subjects[future] = subject
        return future

    def forget(self, future: asyncio.Future[Any]) -> None:
        del self._subjects[future]

    def fail(self, error: BusError, quoted_in: str | None = None) -> None:
        """End every wait, or those whose subject stands quoted, in lower case, in ``quoted_in``."""
        for future, subject in list(self._subjects.items()):
            if quoted_in is None or f'"{subject.lower()}"' in quoted_in:
                _fail(future, error)


class Replies:
    """The private inbox of one connection, ``inbox``.

    Who answers sees one reply subject and may publish to all inboxes, so that each reply subject is random: nats-py's
    can be computed from another one, and an answer be forged in another's name.
    """

    def __init__(self, nc: Client, waiters: Waiters, inbox: str) -> None:
        self._nc = nc
        self._waiters = waiters
        self._prefix = f"{inbox}.{secrets.token_hex(16)}."
        self._open: dict[str, asyncio.Future[Msg]] = {}

    @property
    def subject(self) -> str:
        """What to listen on, with :meth:`receive`."""
        return f"{self._prefix}*"

    async def receive(self, message: Msg) -> None:
        future = self._open.get(message.subject)
        if future and not future.done():
            future.set_result(message)

    async def ask(
        self,
        subject: str,
        body: Payload,
        timeout: float,
        headers: dict[str, str] | None = None,
        probe: Probe | None = None,
    ) -> Msg:
        """Raises BusUnavailable: nobody answers there, not in time; or what the waiters were failed with."""
        answer = await self._answer(subject, body, timeout, headers, probe)
        looks = RELOAD_LOOKS if subject.startswith(JETSTREAM) else 0
        while _is_nobody(answer) and looks:
            looks -= 1
            await asyncio.sleep(LOOK_SECONDS)
            answer = await self._answer(subject, body, timeout, headers, probe)
        if _is_nobody(answer):
            raise BusUnavailable(f"nobody answers on {subject}", hint=hint_of(subject))
        return answer

    async def _answer(
        self, subject: str, body: Payload, timeout: float, headers: dict[str, str] | None, probe: Probe | None
    ) -> Msg:
        inbox = self._prefix + secrets.token_hex(16)
        answered = self._open[inbox] = self._waiters.expect(subject)
        try:
            async with asyncio.timeout(timeout):
                await wire.publish(self._nc, subject, body, inbox, headers)
                while probe and not (await asyncio.wait((answered,), timeout=PROBE_SECONDS))[0]:
                    await probe()
                answer: Msg = await answered
        except TimeoutError as error:
            raise BusUnavailable(f"no answer on {subject} in {timeout:.3g} s", hint=hint_of(subject)) from error
        except (NatsError, OSError) as error:
            raise BusUnavailable(f"cannot ask on {subject}: {error}") from error
        finally:
            del self._open[inbox]
            self._waiters.forget(answered)
        return answer


def _is_nobody(answer: Msg) -> bool:
    return bool(answer.headers and answer.headers.get(STATUS) == NO_RESPONDERS)


def _fail(future: asyncio.Future[Any], error: BusError) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # counts as looked at, should its waiter have left
