"""A process's control connection to NATS, with nats-py's traps handled once, here.

Reconnects for ever and never dials for ever; callbacks that cannot raise; a watchdog; a request that the server's
permissions refuse, or whose connection went away, fails at once and says why; a reply goes to a private inbox alone.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import BadSubscriptionError
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import PubAck

from snappy import config, log
from snappy.bus import jitter, login, wire
from snappy.bus.pieces import Payload
from snappy.bus.replies import Probe, Replies, Waiters
from snappy.bus.subjects import Subjects, inbox
from snappy.bus.tuning import tune_process
from snappy.bus.watchdog import Watchdog, ping, that_cannot_raise
from snappy.errors import BusDenied, BusError, BusFull, BusUnavailable, TooLarge, WrongSequence

MESSAGE_ID = "Nats-Msg-Id"
FULL = (10023, 10077)
WRONG_SEQUENCE = (10071, 10164)
DRAIN_SECONDS = 10.0
SUBSCRIBE_SECONDS = 5.0
ACCOUNT_REPLY = "_R_."
LOGIN = '""'
LOGIN_HINT = "check nats.user, and nats.password or nats.nkey_seed"
SERVER_HINT = "is the server running, and is nats.url right?"
TLS_HINT = "check nats.tls_ca, nats.tls_certificate and nats.tls_key"

_log = log.get(__name__)


class Bus:
    """One control connection. ``user`` is the token that names this process in subjects."""

    nc: Client
    js: JetStreamContext
    subjects: Subjects
    user: str

    def __init__(self, subjects: Subjects, user: str, on_closed: Callable[[], None] | None) -> None:
        self.nc = Client()
        wire.equip(self.nc)
        self.subjects = subjects
        self.user = user
        self.last_violation = ""
        self._said = ""
        self.tasks: set[asyncio.Task[None]] = set()
        self.subscriptions: list[Subscription] = []
        self._on_closed = on_closed
        self._draining = False
        self._up = asyncio.Event()
        self._closed = asyncio.Event()
        self._waiters = Waiters()
        self._replies = Replies(self.nc, self._waiters, inbox(user))
        self._watchdog = Watchdog(self.nc)
        self._watching: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls,
        nats: config.Nats,
        *,
        name: str,
        prefix: str = "snappy",
        user: str = "",
        connect_timeout: float = 5.0,
        on_closed: Callable[[], None] | None = None,
    ) -> Bus:
        """Connect within ``connect_timeout`` seconds, and from then on reconnect for ever.

        ``on_closed`` is called if the connection ends for good though nobody drained it: the process should exit and
        be restarted. Raises BusUnavailable, BusDenied (wrong credentials, at once) or UsageError.
        """
        tune_process()
        who = login.caller(nats, user)
        bus = cls(Subjects(prefix), who, on_closed)
        await bus._open(login.options(nats, who) | {"name": name, "connect_timeout": connect_timeout}, connect_timeout)
        return bus

    # ---- opening and closing -------------------------------------------------------------------------------------

    async def _open(self, options: dict[str, Any], timeout: float) -> None:
        refused = self._waiters.expect("")
        dialing = asyncio.create_task(self.nc.connect(**options, **self._callbacks()))
        try:
            await asyncio.wait({dialing, refused}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            _raise_first(refused, dialing)
            if not dialing.done():
                raise self._unreachable(options["servers"], timeout)
            await self._subscribe(self._replies.subject, "", self._replies.receive)
        except BaseException:
            await self._give_up(dialing)
            raise
        finally:
            self._waiters.forget(refused)
        self.js = self.nc.jetstream()
        self._up.set()
        self._watching = asyncio.create_task(self._watchdog.run())

    def _callbacks(self) -> dict[str, Any]:
        return {
            "error_cb": that_cannot_raise(self._on_error),
            "disconnected_cb": that_cannot_raise(self._on_disconnected),
            "reconnected_cb": that_cannot_raise(self._on_reconnected),
            "closed_cb": that_cannot_raise(self._on_nats_closed),
            "reconnect_to_server_handler": self._next_server,
        }

    async def _give_up(self, dialing: asyncio.Task[None]) -> None:
        self._draining = True
        dialing.cancel()
        await asyncio.wait({dialing}, timeout=1.0)
        closing = asyncio.create_task(self.nc.close())
        await asyncio.wait({closing}, timeout=1.0)

    def _unreachable(self, servers: list[str], timeout: float) -> BusUnavailable:
        reason = f": {self.nc.last_error}" if self.nc.last_error else ""
        return BusUnavailable(
            f"no NATS server answered at {', '.join(servers)} in {timeout:g} s{reason}",
            hint=SERVER_HINT,
        )

    async def drain(self) -> None:
        """Stop listening, let handlers finish (10 seconds at most), send what is left, close. May be called twice."""
        if self._closed.is_set():
            return
        self._draining = True
        if self._watching:
            self._watching.cancel()
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._finish()
        except (NatsError, OSError, TimeoutError) as error:
            _log.info("closed without a full drain", reason=str(error) or type(error).__name__)
        finally:
            for task in self.tasks:
                task.cancel()
            await self._close()

    async def _finish(self) -> None:
        connected = self.nc.is_connected
        for subscription in self.subscriptions if connected else []:
            await _drain(subscription)
        if self.tasks:
            await asyncio.wait(self.tasks)
        if connected:
            await ping(self.nc, DRAIN_SECONDS)

    async def _close(self) -> None:
        closing = asyncio.create_task(self.nc.close())
        await asyncio.wait({closing}, timeout=2.0)
        self._closed.set()

    async def wait_closed(self) -> None:
        """Until the connection has ended for good."""
        await self._closed.wait()

    # ---- nats-py calls these -------------------------------------------------------------------------------------

    def _next_server(self, servers: list[Any], _info: dict[str, Any]) -> tuple[Any, float]:
        """The server tried least, after a random moment, so that a fleet does not come back all at once."""
        self._watchdog.seen()
        chosen = min(servers, key=lambda server: server.reconnects)
        return chosen, jitter.between(0.0, 0.25 if chosen.reconnects == 0 else 2.0)

    async def _on_error(self, error: Exception) -> None:
        text = str(error) or type(error).__name__
        if "permissions violation" in text:
            self.last_violation = text
            self._waiters.fail(BusDenied(f"the NATS server refused: {text.removeprefix('nats: ')}"), text)
        elif "authorization" in text.lower() or "authentication" in text.lower():
            self._waiters.fail(BusDenied("the NATS server refused the credentials", hint=LOGIN_HINT), LOGIN)
        elif isinstance(error, ssl.SSLError):
            self._waiters.fail(BusUnavailable(f"TLS with the NATS server failed: {text}", hint=TLS_HINT), LOGIN)
        if text != self._said:
            _log.warning("NATS says", error=text)
        self._said = text

    async def _on_disconnected(self) -> None:
        self._up.clear()
        self._watchdog.seen()
        self._waiters.fail(BusUnavailable("the connection to NATS was lost before the answer came"))
        if not self._draining:
            _log.warning("NATS is gone; reconnecting")

    async def _on_reconnected(self) -> None:
        self._up.set()
        self._said = ""
        _log.info("NATS is back")

    async def _on_nats_closed(self) -> None:
        self._up.clear()
        self._closed.set()
        if not self._draining:
            _log.error("the NATS connection is closed for good", reason=str(self.nc.last_error or ""))
            if self._on_closed:
                self._on_closed()

    # ---- talking -------------------------------------------------------------------------------------------------

    async def request(self, subject: str, body: Payload, *, timeout: float, probe: Probe | None = None) -> bytes:
        """The answer's body. Waits, within ``timeout`` seconds, for a lost connection to come back.

        Raises TooLarge, BusDenied, or BusUnavailable: nobody answers there, not in time, or the connection was lost.
        """
        return (await self._exchange(subject, body, timeout, probe=probe)).data

    async def publish(self, subject: str, body: Payload, *, headers: dict[str, str] | None = None) -> None:
        """At most once: what matters is a request or a :meth:`store`. Raises TooLarge or BusUnavailable."""
        self._check_size(body, headers)
        try:
            await wire.publish(self.nc, subject, body, headers=headers)
        except (NatsError, OSError) as error:
            raise BusUnavailable(f"cannot publish to NATS: {error}") from error

    async def respond(self, message: Msg, body: Payload) -> None:
        """Answer ``message`` without its headers. Whether its reply may be trusted: :meth:`reply_allowed`."""
        if message.reply:
            await self.publish(message.reply, body)

    @staticmethod
    def reply_allowed(message: Msg, caller: str, private: bool) -> bool:
        """Whether an answer goes to an inbox: the caller's own where inboxes are ``private``, else anybody's.

        Anything else would let a caller make the responder publish where the caller may not. To be asked *before* a
        request has any effect. Where the caller sits in another account the server puts its own subject there, which
        no client may name, and which leads into the caller's account alone.
        """
        return message.reply.startswith((f"{inbox(caller)}." if private else "_INBOX.", ACCOUNT_REPLY))

    async def store(
        self,
        subject: str,
        body: bytes,
        *,
        message_id: str | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 5.0,
        attempts: int = 4,
    ) -> PubAck:
        """Store a message in the stream of ``subject``, once however often it is tried.

        Without ``message_id`` a random one of 128 bits is used, and the server's word that it is a repeat of an
        unknown message is a BusError; with one a repeat is the caller's to judge (``duplicate`` of the answer).
        Raises WrongSequence, BusFull, TooLarge, BusDenied, BusUnavailable.
        """
        sent = {**(headers or {}), MESSAGE_ID: message_id or secrets.token_hex(16)}
        for attempt in range(attempts):
            try:
                ack = await self._store_once(subject, body, sent, timeout)
            except BusFull:
                raise
            except BusUnavailable:
                if attempt + 1 == attempts:
                    raise
                await asyncio.sleep(jitter.between(0.5, 1.0) * 0.2 * 2**attempt)
                continue
            if ack.duplicate and attempt == 0 and message_id is None:
                raise BusError(f"the server says that a new message on {subject} is a repeat; it was not stored")
            return ack
        raise BusUnavailable(f"nothing was sent to {subject}")

    async def _store_once(self, subject: str, body: bytes, headers: dict[str, str], timeout: float) -> PubAck:
        answer = json.loads((await self._exchange(subject, body, timeout, headers=headers)).data)
        if "error" in answer:
            raise _refusal(subject, answer["error"])
        ack: PubAck = PubAck.from_response(answer)
        return ack

    async def _exchange(self, subject: str, body: Payload, timeout: float, **more: Any) -> Msg:
        self._check_size(body, more.get("headers"))
        deadline = asyncio.get_running_loop().time() + timeout
        await self.wait_up(timeout)
        left = max(0.001, deadline - asyncio.get_running_loop().time())
        return await self._replies.ask(subject, body, left, **more)

    async def wait_up(self, timeout: float) -> None:
        """Until there is a connection. Raises BusUnavailable when there is none in ``timeout`` seconds."""
        if self._up.is_set():
            return
        if self._closed.is_set():
            raise BusUnavailable("the connection to NATS is closed")
        try:
            async with asyncio.timeout(timeout):
                await self._up.wait()
        except TimeoutError as error:
            raise BusUnavailable(f"no connection to NATS for {timeout:g} s", hint=SERVER_HINT) from error

    def _check_size(self, body: Payload, headers: dict[str, str] | None) -> None:
        """nats-py does not count headers, and the server cuts the whole connection for one message too large."""
        size = wire.message_size(body, headers)
        if size > self.nc.max_payload:
            raise TooLarge(f"a message of {size} bytes; the NATS server takes {self.nc.max_payload}")

    # ---- listening -----------------------------------------------------------------------------------------------

    async def listen(self, subject: str, queue: str, callback: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """Subscribe until :meth:`drain`, and know that the server agreed. Raises BusDenied or BusUnavailable."""
        subscription = await self._subscribe(subject, queue, callback)
        self.subscriptions.append(subscription)
        return subscription

    async def _subscribe(self, subject: str, queue: str, callback: Callable[[Msg], Awaitable[None]]) -> Subscription:
        denied = self._waiters.expect(subject)
        try:
            subscription = await self.nc.subscribe(subject, queue=queue, cb=callback)
            if not await ping(self.nc, SUBSCRIBE_SECONDS):
                raise BusUnavailable(f"no word from NATS on the subscription to {subject}")
            if denied.done():
                await subscription.unsubscribe()  # else it would be asked for again at each reconnect
            _raise_first(denied)
        except (NatsError, OSError) as error:
            raise BusUnavailable(f"cannot listen on {subject}: {error}") from error
        finally:
            self._waiters.forget(denied)
        return subscription

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` in a task that is kept until it ends, and that :meth:`drain` waits for."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


async def serve(
    bus: Bus, subject: str, queue: str, handler: Callable[[Msg], Awaitable[None]], *, limit: int
) -> Subscription:
    """Give each message on ``subject`` to ``handler``, ``limit`` at a time; what it raises is logged.

    More than ``limit`` wait in the subscription. Raises BusDenied or BusUnavailable.
    """
    room = asyncio.Semaphore(limit)

    async def handle(message: Msg) -> None:
        try:
            await handler(message)
        except Exception:
            _log.exception("a handler failed", subject=message.subject)
        finally:
            room.release()

    async def receive(message: Msg) -> None:
        await room.acquire()
        bus.start(handle(message))

    return await bus.listen(subject, queue, receive)


async def _drain(subscription: Subscription) -> None:
    try:
        await subscription.drain()  # type: ignore[no-untyped-call]
    except BadSubscriptionError:
        _log.debug("already unsubscribed", subject=subscription.subject)


def _raise_first(*futures: asyncio.Future[None]) -> None:
    for future in futures:
        if future.done():
            future.result()


def _refusal(subject: str, error: dict[str, Any]) -> BusError:
    """What JetStream answered instead of storing."""
    code, text = error.get("err_code", 0), error.get("description", "")
    if code in WRONG_SEQUENCE:
        return WrongSequence(f"{subject}: {text}")
    if code in FULL:
        return BusFull(f"{subject}: {text}")
    if error.get("code") == 503:
        return BusUnavailable(f"{subject}: {text}")
    return BusError(f"{subject} was not stored: {text} ({code})", err_code=code)
