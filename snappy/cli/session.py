"""From a command line to a client of the bus: with a server configured, or with an embedded stack of its own."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from snappy.bus.connection import Bus
from snappy.cli import options, stdin
from snappy.config import Config
from snappy.errors import UsageError
from snappy.frontend import alive
from snappy.frontend.api import Client

if TYPE_CHECKING:
    from snappy.cli import embedded


@dataclass(frozen=True)
class Session:
    """Whom a job on a repository names, and the client to ask."""

    client: Client
    source: str
    target: str
    key: str
    embedded: bool
    origin: str = ""
    """The target that a copy is made of, and its key."""
    origin_key: str = ""

    def names(self, request: str | None = None) -> dict[str, Any]:
        """The fields that every command has."""
        named = {"source": self.source, "target": self.target, "key": self.key}
        return named | ({"request": request} if request else {})

    def place(self, path: str) -> str:
        """A path or URL as a job may name it. Only here and now is it known what a relative path means."""
        if self.embedded:
            return options.as_url(path)
        if "://" not in path and not path.startswith("/"):
            raise UsageError(f"{path!r} is relative, and the source service is elsewhere", hint="give an absolute path")
        return path


@asynccontextmanager
async def for_repository(arguments: argparse.Namespace, *, new: bool = False) -> AsyncIterator[Session]:
    """A session about the repository at ``arguments.place``; ``new``: it may be made, so ask for its password twice."""
    settings = options.load(arguments)
    if settings.nats.url or not options.is_place(arguments.place):
        async with _with_server(arguments, settings) as session:
            yield session
        return
    if arguments.source:
        raise UsageError("--source needs a server: without one this command does the work", hint="leave it out")
    from snappy.cli import embedded, passwords

    settings = stdin.made_available(settings, arguments)
    place = embedded.Place(options.as_url(arguments.place), passwords.find(arguments, new=new))
    origin = _origin(arguments)
    next_password = passwords.find_next(arguments) if hasattr(arguments, "new_key") else ""
    key, origin_key = arguments.key or "default", embedded.ORIGIN_KEY if origin else ""
    async with embedded.one_shot(settings, place, origin, next_password) as (client, pair):
        yield Session(client, pair.source, pair.target, key, True, pair.origin if origin else "", origin_key)


def _origin(arguments: argparse.Namespace) -> embedded.Place | None:
    given = getattr(arguments, "origin", None)
    if given is None:
        return None
    if not options.is_place(given):
        raise UsageError(f"{given!r} is a target's name, and {arguments.place} is a place", hint="give two of a kind")
    from snappy.cli import embedded, passwords

    return embedded.Place(options.as_url(given), passwords.of_origin(arguments))


@asynccontextmanager
async def for_questions(arguments: argparse.Namespace) -> AsyncIterator[Client]:
    """A client that asks about jobs, services and the audit."""
    settings = options.load(arguments)
    if settings.nats.url:
        async with connected(settings) as client:
            yield client
        return
    from snappy.cli import embedded

    async with embedded.records(settings) as client:
        yield client


@asynccontextmanager
async def connected(settings: Config) -> AsyncIterator[Client]:
    """A client of the server that the configuration names."""
    bus = await Bus.connect(settings.nats, name="snappy-cli", prefix=settings.prefix)
    try:
        yield Client(bus)
    finally:
        await bus.drain()


@asynccontextmanager
async def _with_server(arguments: argparse.Namespace, settings: Config) -> AsyncIterator[Session]:
    stdin.refuse_with_a_service(arguments)
    if settings.nats.url:
        options.refuse_with_a_server(arguments)
    async with _way(settings, arguments.place) as client:
        source = arguments.source or await alive.only_source(client)
        origin, origin_key = getattr(arguments, "origin", ""), getattr(arguments, "from_key", None) or "default"
        yield Session(client, source, arguments.place, arguments.key or "default", False, origin, origin_key)


def _way(settings: Config, target: str) -> AbstractAsyncContextManager[Client]:
    if settings.nats.url:
        return connected(settings)
    from snappy.cli import embedded

    return embedded.running(settings, target)
