"""Runs roles: the core, the audit, source services and target services, one or all of them in this process.

Each role has a connection of its own and is given its own section of the configuration. What a role needs is imported
when it starts: the core's process never loads the engine or a storage.
"""

from __future__ import annotations

import asyncio
import io
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from snappy import log, secrets
from snappy.bus.connection import Bus
from snappy.bus.grants import SigningKey
from snappy.config import Allow, Audit, Config, Core, Nats, SourceService, nearest
from snappy.errors import BusUnavailable, UsageError

Kind = Literal["core", "audit", "source", "target"]
CORE_KEY = "core.key"
STOP_SECONDS = 80.0
"""After a signal a process has so long to end: ten seconds less than systemd gives it."""
LAYERS = (("core", "audit"), ("target",), ("source",))

_log = log.get(__name__)


class Role(NamedTuple):
    """One thing that a process does. Sources and targets have names."""

    kind: Kind
    name: str = ""

    @property
    def user(self) -> str:
        """Its token on the bus."""
        return self.name or self.kind

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".strip()


@dataclass
class Host:
    """What the roles of one process are run with.

    ``signing_key`` and ``public_key`` take the place of the configured ones; ``nats`` gives a role its way to the
    bus; ``passwords`` and ``rules`` are for the sources (see :class:`snappy.sources.service.SourceService`).
    """

    config: Config
    nats: Callable[[Role], Nats] | None = None
    signing_key: str = ""
    public_key: str = ""
    passwords: Callable[[str], str] | None = None
    rules: Allow | None = None
    passing: Callable[[str], bool] | None = None
    """Knows the source services that lived for one command: the core ends what they left, before it starts."""
    ready: dict[Role, asyncio.Event] = field(default_factory=dict)

    def way(self, role: Role) -> Nats:
        """How ``role`` reaches the bus."""
        if self.nats:
            return self.nats(role)
        return getattr(section(self.config, role), "nats", None) or self.config.nats


def roles_of(settings: Config) -> list[Role]:
    """All roles that a configuration holds; the core and the audit come first."""
    found = [Role("core")] if settings.core else []
    found += [Role("audit")] if settings.audit else []
    found += [Role("source", name) for name in settings.source]
    return found + [Role("target", name) for name in settings.target]


def section(settings: Config, role: Role) -> Any:
    """The part of the configuration that is the role's own. Raises UsageError when there is none."""
    found = getattr(settings, role.kind)
    if role.name:
        found = found.get(role.name)
    if found is None and role.name:
        known = [each.name for each in roles_of(settings) if each.kind == role.kind]
        raise UsageError(f"there is no [{role.kind}.{role.name}]", hint=nearest(role.name, known))
    return found if found is not None else {"core": Core, "audit": Audit}[role.kind]()


async def run(host: Host, roles: list[Role]) -> None:
    """Run the roles until cancelled, or until one of them fails.

    Targets start when core and audit are ready, sources last, and all end the other way round: a source that stops
    takes its locks away and gives its jobs back.
    """
    _refuse_shared_storage(host.config, roles)
    layers = [[role for role in roles if role.kind in kinds] for kinds in LAYERS]
    await _run_layers(host, [layer for layer in layers if layer])


async def _run_layers(host: Host, layers: list[list[Role]]) -> None:
    if not layers:
        return
    async with asyncio.TaskGroup() as group:
        _start(group, host, layers[0])
        await wait_ready(host, layers[0])
        await _run_layers(host, layers[1:])


def _start(group: asyncio.TaskGroup, host: Host, roles: list[Role]) -> None:
    for role in roles:
        host.ready.setdefault(role, asyncio.Event())
        group.create_task(_run_role(host, role), name=str(role))


async def wait_ready(host: Host, roles: list[Role]) -> None:
    """Until each role serves."""
    for role in roles:
        await host.ready.setdefault(role, asyncio.Event()).wait()


async def until_signalled(work: Coroutine[Any, Any, None]) -> None:
    """Run ``work``; SIGTERM and SIGINT cancel it, and that is no error."""
    task = asyncio.ensure_future(work)
    loop, signalled = asyncio.get_running_loop(), asyncio.Event()

    def stop() -> None:
        if not signalled.is_set():
            threading.Thread(target=_see_to_the_end, args=(loop,), name="end", daemon=True).start()
        signalled.set()
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not signalled.is_set():
            raise


def _see_to_the_end(loop: asyncio.AbstractEventLoop) -> None:
    """All that is cut short by it is as safe as from a kill; a process that waits for ever takes no job's place."""
    time.sleep(STOP_SECONDS)
    waits = io.StringIO()
    for task in asyncio.all_tasks(loop):
        task.print_stack(file=waits)
    _log.error("the process did not stop in time", seconds=STOP_SECONDS, waits=waits.getvalue())
    os._exit(1)


async def _run_role(host: Host, role: Role) -> None:
    nats = host.way(role)
    bus = await Bus.connect(nats, name=f"snappy-{role}".replace(" ", "-"), prefix=host.config.prefix, user=role.user)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_fail_when_closed(bus, role))
            group.create_task(_START[role.kind](host, role, bus, nats))
    finally:
        await bus.drain()


async def _fail_when_closed(bus: Bus, role: Role) -> None:
    await bus.wait_closed()
    raise BusUnavailable(f"the connection of the {role} to NATS is closed for good", hint="see the log for the reason")


async def _serve(host: Host, role: Role, service: Any) -> None:
    _log.info("starting", role=str(role))
    async with asyncio.TaskGroup() as group:
        group.create_task(service.run())
        await service.ready.wait()
        host.ready[role].set()
        _log.info("ready", role=str(role))


async def _start_core(host: Host, role: Role, bus: Bus, nats: Nats) -> None:
    from snappy.jobs.core import Core as Service

    settings = section(host.config, role)
    key = SigningKey.from_text(host.signing_key or _signing_key(settings))
    core = Service(bus, settings, key, private_inboxes=bool(nats.user))
    if host.passing:
        await core.prepare()
        await core.end_leftovers(host.passing)
    await _serve(host, role, core)


async def _start_audit(host: Host, role: Role, bus: Bus, nats: Nats) -> None:
    from snappy.jobs.audit import AuditService

    settings = section(host.config, role)
    path = settings.path or os.path.join(host.config.state_dir, "audit")
    service = AuditService(bus, path, private_inboxes=bool(nats.user), readers=frozenset(settings.readers))
    try:
        await _serve(host, role, service)
    finally:
        service.close()


async def _start_source(host: Host, role: Role, bus: Bus, nats: Nats) -> None:
    from snappy.sources.service import SourceService as Service

    settings = section(host.config, role)
    service = Service(
        bus,
        role.name,
        settings,
        nats,
        passwords=host.passwords,
        rules=host.rules,
        private_inboxes=bool(nats.user),
        index_cache=_index_cache(host.config, settings),
        work=_work(host.config),
    )
    await _serve(host, role, service)


def _work(settings: Config) -> str:
    return str(Path(settings.state_dir, "work").expanduser().absolute()) if settings.state_dir else ""


def _index_cache(settings: Config, source: SourceService) -> Path | None:
    if not source.index_cache or not settings.state_dir:
        return None
    return Path(settings.state_dir, "indexes").expanduser().absolute()


async def _start_target(host: Host, role: Role, bus: Bus, nats: Nats) -> None:
    from snappy.targets.service import TargetService

    service = TargetService(
        bus,
        role.name,
        section(host.config, role),
        core_public_key=host.public_key,
        private_inboxes=bool(nats.user),
    )
    await _serve(host, role, service)


_START: dict[str, Callable[[Host, Role, Bus, Nats], Coroutine[Any, Any, None]]] = {
    "core": _start_core,
    "audit": _start_audit,
    "source": _start_source,
    "target": _start_target,
}


def _signing_key(settings: Core) -> str:
    if settings.signing_key is None:
        raise UsageError("the core has no signing_key", hint="`snappy keygen` makes the core's pair of keys")
    return secrets.read(settings.signing_key)


def kept_signing_key(state_dir: str) -> SigningKey:
    """The key of the core that runs on the embedded server; made on first use, readable by its owner alone."""
    path = Path(state_dir, CORE_KEY)
    try:
        return SigningKey.from_text(path.read_text())
    except FileNotFoundError:
        return _make_signing_key(path)


def _make_signing_key(path: Path) -> SigningKey:
    """Whole or not at all, and never in place of one that another process made meanwhile."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(SigningKey.generate().to_text())
    try:
        os.link(draft, path)
    except FileExistsError:
        _log.debug("another process made the core's key first")
    finally:
        draft.unlink()
    return SigningKey.from_text(path.read_text())


def _refuse_shared_storage(settings: Config, roles: list[Role]) -> None:
    """fsspec's defaults are the process's: a source's credentials would become a target's."""
    for role in roles:
        if role.kind == "source" and section(settings, role).storage_options and len(roles) > 1:
            raise UsageError(
                f"source {role.name!r} has storage_options and shares its process with other roles",
                hint="run it with --split, or as `snappy source run`",
            )


class ChildStart(msgspec.Struct, frozen=True):
    """What a role's own process is told on standard input: its role, and its part of the configuration."""

    kind: Kind
    name: str
    config: Config
    signing_key: str = ""
    public_key: str = ""


def narrowed(settings: Config, role: Role, nats: Nats) -> Config:
    """A configuration that holds the role's own section and no other's."""
    own = msgspec.structs.replace(section(settings, role), nats=None)
    empty = msgspec.structs.replace(settings, nats=nats, core=None, audit=None, source={}, target={})
    return msgspec.structs.replace(empty, **{role.kind: {role.name: own} if role.name else own})
