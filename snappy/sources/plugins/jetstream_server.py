"""A NATS server with JetStream: how to reach it, as the service's configuration says, what is asked of it, and what its
errors mean.

Plug-ins work in threads, nats-py in a loop: each :class:`Connection` has a loop of its own, in a thread of its own. It
never reconnects, for what a snapshot or a restore was at is over at the server as soon as the connection is.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Meta
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from snappy import secrets
from snappy.config import Secret
from snappy.errors import AttemptOver, NoSpace, SnappyError, SourceDenied, SourceError, SourceMissing, SourceUnavailable
from snappy.sources.site import Site

PLUGIN = "jetstream"
API = "$JS.API"
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 30.0
FLUSH_SECONDS = 10
HEARD_SECONDS = 1.0
PING_SECONDS = 10
NOT_FOUND = 10059

Answer = dict[str, Any]
Result = TypeVar("Result")


def _about(text: str) -> Any:
    return Meta(description=text)


class JetstreamSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a NATS server is, and as whom to go there."""

    url: Annotated[str, _about("its address, or several with commas between: the first that answers is taken")] = (
        "nats://127.0.0.1:4222"
    )
    user: Annotated[str, _about("the user's name")] = ""
    password: Annotated[Secret | None, _about("where the user's password is found")] = None
    token: Annotated[Secret | None, _about("where a token is found, for a server that asks for one")] = None
    nkey_seed: Annotated[Secret | None, _about("where the seed of the user's nkey is found")] = None
    credentials: Annotated[str, _about("the file of a user's JWT and seed, as nsc writes it")] = ""
    tls_ca: Annotated[str, _about("the file of the authorities that may vouch for the server")] = ""
    tls_certificate: Annotated[str, _about("the file of the user's certificate")] = ""
    tls_key: Annotated[str, _about("the file of that certificate's key")] = ""
    inbox_prefix: Annotated[str, _about("begins the subjects of answers, where the user may hear no others")] = "_INBOX"


def claim(server: str, stream: str = "") -> str:
    """How rules name a server, or one of its streams."""
    return f"{PLUGIN}://{server}" + (f"/{quote(stream, safe='$@+=#')}" if stream else "")


class Connection:
    """To the server that the settings of that name describe. Its methods are for any thread but the loop's. What was
    asked when the connection ends, or :meth:`end` is called, fails at once.

    Raises :class:`SourceUnavailable` and :class:`SourceDenied`.
    """

    def __init__(self, site: Site, name: str) -> None:
        self.name = name
        settings: JetstreamSettings = site.settings(PLUGIN, JetstreamSettings, name)
        self.nc = Client()
        self.loop = asyncio.new_event_loop()
        self.failure: SnappyError | None = None
        self._said = self._violation = ""
        self._watchers: list[Callable[[], None]] = []
        self._waiting: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self.loop.run_forever, name="nats", daemon=True)
        self._thread.start()
        try:
            self.call(self._connect(settings))
        except BaseException:
            self.close()
            raise

    # ---- for who works with it ---------------------------------------------------------------------------------------

    def ask(self, verb: str, body: Answer | None = None, *, seconds: float = ANSWER_SECONDS) -> Answer:
        """What JetStream answers, ``STREAM.INFO.<stream>`` and the like. Raises as :func:`check_answer`, too."""
        return self.call(self.ask_in_loop(verb, body, seconds))

    def call(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What ``work`` returns, in the loop."""
        done: Future[Result] = asyncio.run_coroutine_threadsafe(self._watched(work), self.loop)
        return done.result()

    def soon(self, work: Callable[[], Awaitable[Any]]) -> None:
        """Begin ``work`` in the loop, and do not wait for it."""
        with suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self.begin, work)

    def watch(self, watcher: Callable[[], None]) -> None:
        """To be called, in the loop, when the connection ended: :attr:`failure` says why."""
        self._watchers.append(watcher)

    def check(self) -> None:
        """Raise what ended the connection, if it did."""
        if self.failure:
            raise self.failure

    def end(self) -> None:
        """The attempt is over. From any thread; does not wait."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._fail, AttemptOver())

    def close(self) -> None:
        """May be called twice."""
        if self.loop.is_closed():
            return
        with suppress(Exception):
            asyncio.run_coroutine_threadsafe(self._shut(), self.loop).result(CONNECT_SECONDS)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def is_heard(self, subject: str) -> bool:
        """Whether anybody listens there, who need not answer."""
        return self.call(self._is_heard(subject))

    async def _is_heard(self, subject: str) -> bool:
        try:
            await self.nc.request(subject, timeout=HEARD_SECONDS)
        except NoRespondersError:
            return False
        except TimeoutError:
            return True
        except NatsError as error:
            raise self._unanswered(subject) from error
        return True

    async def listen(self, subject: str, heard: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """Subscribe, in the loop, and know that the server did."""
        subscription = await self.nc.subscribe(subject, cb=heard)
        await self.nc.flush(timeout=FLUSH_SECONDS)
        return subscription

    # ---- in the loop -------------------------------------------------------------------------------------------------

    async def _connect(self, settings: JetstreamSettings) -> None:
        options = _options(settings) | {
            "error_cb": self._on_error,
            "disconnected_cb": self._on_lost,
            "closed_cb": self._on_lost,
        }
        addresses = [each.strip() for each in settings.url.split(",") if each.strip()]
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self.nc.connect(addresses, **options)
        except (NatsError, OSError, TimeoutError, ValueError) as error:
            if _is_denial(str(error)):
                raise SourceDenied(f"the NATS server {self.name} refused the credentials") from error
            raise SourceUnavailable(
                f"the NATS server {self.name} does not answer: {self._said or error or type(error).__name__}",
                hint="look whether it runs, and at the plug-in's settings at the source service",
            ) from error

    async def _shut(self) -> None:
        """Nothing goes on after that. Who asks for something later hears that the connection is lost."""
        await self.nc.close()
        await self._on_lost()
        left = list(self._waiting)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _watched(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What ends with the connection."""
        task = asyncio.create_task(work)
        self._waiting.add(task)
        try:
            self.check()
            return await task
        except asyncio.CancelledError:
            self.check()
            raise
        finally:
            self._waiting.discard(task)
            task.cancel()

    async def ask_in_loop(self, verb: str, body: Answer | None, seconds: float) -> Answer:
        """As :meth:`ask`."""
        said = json.dumps(body).encode() if body is not None else b""
        try:
            answer: Answer = json.loads((await self.nc.request(f"{API}.{verb}", said, timeout=seconds)).data)
        except NoRespondersError as error:
            raise SourceUnavailable(
                f"nobody answers at the NATS server {self.name} for JetStream",
                hint="is JetStream enabled there, and for the account of the configured user?",
            ) from error
        except (TimeoutError, NatsError) as error:
            raise self._unanswered(verb) from error
        check_answer(answer)
        return answer

    def _unanswered(self, verb: str) -> SourceError:
        if self._violation:
            return SourceDenied(f"the NATS server {self.name} refused: {self._violation}")
        return SourceUnavailable(
            f"the NATS server {self.name} did not answer {verb} in time", hint="look at the server's log"
        )

    def begin(self, work: Callable[[], Awaitable[Any]]) -> None:
        """As :meth:`soon`."""
        task = self.loop.create_task(_quietly(work))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _on_error(self, error: Exception) -> None:
        """nats-py calls this; a message that it dropped is lost, and so is what it belonged to."""
        self._said = said = str(error).removeprefix("nats: ") or type(error).__name__
        if _is_denial(said):
            self._violation = said
            self._fail(SourceDenied(f"the NATS server {self.name} refused: {said}"))
        elif self.nc.is_connected:
            self._fail(SourceUnavailable(f"the NATS server {self.name}: {said}"))

    async def _on_lost(self) -> None:
        self._fail(
            SourceUnavailable(
                f"the connection to the NATS server {self.name} was lost", hint="look whether the server runs"
            )
        )

    def _fail(self, error: SnappyError) -> None:
        self.failure = self.failure or error
        for task in self._waiting:
            task.cancel()
        for watcher in self._watchers:
            watcher()


FULL = (10023, 10028, 10047, 10120, 10121)
HINTS = {
    10065: "streams of one account cannot hear the same subjects: restore to another server or account, or remove the "
    "stream that has them",
    10074: "restore with replicas: 1, or to a cluster",
}
"""By the numbers of JetStream's errors (errors.json of the server)."""


def check_answer(answer: Answer) -> None:
    """Raise what it says."""
    error = answer.get("error")
    if not error:
        return
    number, said = error.get("err_code", 0), error.get("description", "no reason given")
    if number == NOT_FOUND:
        raise SourceMissing(f"JetStream says: {said}", hint="`nats stream ls` lists the streams")
    if number in FULL:
        raise NoSpace(
            f"JetStream says: {said}", hint="free space where the NATS server keeps streams, or raise its limits"
        )
    raise SourceError(f"JetStream says: {said}", hint=HINTS.get(number, "look at the NATS server's log"))


def _is_denial(said: str) -> bool:
    return any(word in said.lower() for word in ("violation", "authoriz", "authentic"))


async def _quietly(work: Callable[[], Awaitable[Any]]) -> None:
    with suppress(NatsError, OSError, SnappyError):
        await work()


def _options(settings: JetstreamSettings) -> dict[str, Any]:
    """Keyword arguments of ``Client.connect``."""
    chosen: dict[str, Any] = {
        "name": "snappy",
        "allow_reconnect": False,
        "max_reconnect_attempts": 1,
        "reconnect_time_wait": 0,
        "connect_timeout": CONNECT_SECONDS,
        "ping_interval": PING_SECONDS,
        "max_outstanding_pings": 2,
        "inbox_prefix": settings.inbox_prefix,
    }
    if settings.user:
        chosen["user"] = settings.user
    for name, secret in (
        ("password", settings.password),
        ("token", settings.token),
        ("nkeys_seed_str", settings.nkey_seed),
    ):
        if secret:
            chosen[name] = secrets.read(secret)
    if settings.credentials:
        chosen["user_credentials"] = settings.credentials
    if "tls://" in settings.url or settings.tls_ca:
        chosen["tls"] = _tls(settings)
    return chosen


def _tls(settings: JetstreamSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca or None)
        if settings.tls_certificate:
            context.load_cert_chain(settings.tls_certificate, settings.tls_key or None)
    except OSError as error:
        raise SourceError(f"the TLS files of the NATS server cannot be used: {error.strerror or error}") from error
    return context
