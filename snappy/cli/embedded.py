"""The embedded stack: a private server, and the roles that a command needs, for as long as it runs.

The first command on a state folder owns the server, the core and the audit; others join with services of their own,
and the owner stays until they are done.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from snappy import config, serve
from snappy.bus.broker import Broker
from snappy.bus.connection import Bus
from snappy.bus.roles import User
from snappy.cli import output, slots
from snappy.config import Config
from snappy.errors import Interrupted, UsageError
from snappy.frontend.api import Client
from snappy.jobs.states import FINAL, State
from snappy.serve import Role
from snappy.sources.allow import EVERYTHING

ROLES = [Role("core"), Role("audit")]
USER = "local"
"""Who asks, when whoever is at the machine does."""
OWN_USERS = [User("core", "core"), User("audit", "audit"), User(USER, "submitter")]
REPLICA = "cli"
OWN_RIGHTS = "rlwd"
"""At a place that whoever is at the machine gave: what their own jobs need, and no more."""


ORIGIN_KEY = "of-the-origin"
NEXT_KEY = "to-be-added"


class Place(NamedTuple):
    """A repository: its URL and its password."""

    url: str
    password: str


@dataclass
class Server:
    """A server that this command owns or has joined."""

    broker: Broker
    host: serve.Host

    @property
    def roles(self) -> list[Role]:
        """The roles that this command has to run for the server to be of use."""
        return ROLES if self.broker.owned else []


@asynccontextmanager
async def server(settings: Config, users: Sequence[User] = (), *, lasting: bool = False) -> AsyncIterator[Server]:
    """Start the server on the state folder or join the one that runs there; ``users`` are let in.

    With ``lasting`` a server that runs for one command alone is not joined: its end is waited for.
    """
    broker = await _start(settings, [*OWN_USERS, *users], lasting)
    try:
        yield _server(settings, broker)
    finally:
        await broker.stop()


async def _start(settings: Config, users: Sequence[User], lasting: bool) -> Broker:
    while True:
        broker = await Broker.start(settings.state_dir, users, prefix=settings.prefix, lasting=lasting)
        if broker.owned or broker.lasting or not lasting:
            return broker
        output.note(f"another command's server runs on {settings.state_dir}; waiting until that command ends")
        await broker.ended()


def _server(settings: Config, broker: Broker) -> Server:
    key = serve.kept_signing_key(settings.state_dir)
    core = settings.core or config.Core()
    core = msgspec.structs.replace(core, may_delete=[*core.may_delete, USER])
    whole = msgspec.structs.replace(settings, core=core, audit=settings.audit or config.Audit())
    host = serve.Host(
        whole,
        nats=lambda role: broker.nats(role.user),
        signing_key=key.to_text(),
        public_key=key.public_text(),
        passing=slots.is_passing,
    )
    return Server(broker, host)


def users_of(settings: Config) -> list[User]:
    """The users of a configuration's services, and of the submitters that its rules name."""
    submitters = {name for source in settings.source.values() for name in source.allow if name != "*"}
    return [
        *(User(name, "source") for name in settings.source),
        *(User(name, "target") for name in settings.target),
        *(User(name, "submitter") for name in sorted(submitters - {USER})),
    ]


def open_to_owner(settings: Config) -> Config:
    """The same, with everything allowed to :data:`USER`: who runs this machine's stack can read its secrets anyway."""
    sources = {
        name: msgspec.structs.replace(source, allow={USER: EVERYTHING, **source.allow})
        for name, source in settings.source.items()
    }
    return msgspec.structs.replace(settings, source=sources)


def _plugins(settings: Config) -> dict[str, dict[str, dict[str, Any]]]:
    """The plug-ins' settings of all source services of the configuration: who runs this can read them anyway."""
    joined: dict[str, dict[str, dict[str, Any]]] = {}
    for source in settings.source.values():
        for plugin, named in source.plugins.items():
            joined[plugin] = named | joined.get(plugin, {})
    return joined


def _drills(settings: Config) -> dict[str, config.DrillProgram]:
    """Likewise the programs for drills."""
    return {name: program for source in settings.source.values() for name, program in source.drills.items()}


def _hooks(settings: Config) -> dict[str, config.Hook]:
    """Likewise the hooks."""
    return {name: hook for source in settings.source.values() for name, hook in source.hooks.items()}


@asynccontextmanager
async def one_shot(
    settings: Config, place: Place, origin: Place | None = None, next_password: str = ""
) -> AsyncIterator[tuple[Client, slots.Slot]]:
    """A stack with one source that may do everything here and one target at ``place``, for one command; a copy has
    another target, which can only be read, and a new key another password."""
    with slots.take(settings.state_dir) as slot:
        others = {ORIGIN_KEY: origin.password} if origin else {NEXT_KEY: next_password}
        targets = {slot.target: config.TargetService(url=place.url, replica=REPLICA, rights=OWN_RIGHTS)}
        if origin:
            targets[slot.origin] = config.TargetService(url=origin.url, replica=REPLICA, rights="rl")
        users = [User(slot.source, "source"), *(User(name, "target") for name in targets)]
        async with server(settings, users) as opened:
            opened.host.config = msgspec.structs.replace(
                opened.host.config,
                source={
                    slot.source: config.SourceService(
                        replica=REPLICA,
                        plugins=_plugins(settings),
                        drills=_drills(settings),
                        hooks=_hooks(settings),
                    )
                },
                target=targets,
            )
            opened.host.passwords = lambda key: others.get(key, place.password)
            opened.host.rules = EVERYTHING
            roles = [*opened.roles, Role("source", slot.source), *(Role("target", name) for name in targets)]
            async with _running(opened, roles) as client:
                await _cancel_leftovers(client, slot)
                yield client, slot
                await _see_others_out(opened, slot)


@asynccontextmanager
async def records(settings: Config) -> AsyncIterator[Client]:
    """A client of the server that runs on the state folder, or of one that is started to look at what it kept."""
    async with server(settings) as opened, _running(opened, opened.roles) as client:
        yield client
        await _see_others_out(opened)


@asynccontextmanager
async def running(settings: Config, target: str) -> AsyncIterator[Client]:
    """A client of the server that `snappy up` runs on the state folder. Raises UsageError if none does."""
    broker = await Broker.join(settings.state_dir, OWN_USERS, prefix=settings.prefix)
    if broker is None or not broker.lasting:
        raise UsageError(
            f"{target!r} is a target's name, and no server is configured or running",
            hint=f"start `snappy up`, set nats.url, or write ./{target} for a folder",
        )
    async with _running(_server(settings, broker), []) as client:
        yield client


@asynccontextmanager
async def _running(opened: Server, roles: list[Role]) -> AsyncIterator[Client]:
    """Run the roles for the length of the block; a role that fails ends the block."""
    async with asyncio.TaskGroup() as group:
        work = group.create_task(serve.run(opened.host, roles))
        await serve.wait_ready(opened.host, roles)
        bus = await Bus.connect(opened.broker.nats(USER), name="snappy-cli", prefix=opened.host.config.prefix)
        try:
            yield Client(bus)
        finally:
            await bus.drain()
            work.cancel()


async def _cancel_leftovers(client: Client, slot: slots.Slot) -> None:
    """A command that was killed while it had this number left jobs that nobody shall do with our password."""
    unfinished = [state for state in State if state not in FINAL]
    for record in await client.list(states=unfinished, source=slot.source):
        await client.cancel(record.id)


async def _see_others_out(opened: Server, slot: slots.Slot | None = None) -> None:
    """Where other commands use a server of ours: leave after them, unless interrupted."""
    if not opened.broker.owned:
        return
    others = asyncio.create_task(slots.wait_until_free(opened.host.config.state_dir, but=slot))
    done, _ = await asyncio.wait({others}, timeout=slots.LOOK_SECONDS)
    if not done:
        output.note("waiting for other commands that use this command's server")
    try:
        await others
    except asyncio.CancelledError:
        raise Interrupted("left while other commands used this command's server") from None
