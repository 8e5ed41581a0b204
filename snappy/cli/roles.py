"""Runs roles of a configuration in this process or in one each, on a server of their own where none is configured."""

from __future__ import annotations

import asyncio

from snappy import serve
from snappy.bus.broker import Broker
from snappy.cli import children, embedded, output
from snappy.config import Config
from snappy.errors import BusUnavailable, UsageError


def run(settings: Config, names: list[str], *, split: bool) -> None:
    """Run the roles that are named, by default all, until a signal ends them."""
    asyncio.run(serve.until_signalled(_run(settings, names, split)))


async def _run(settings: Config, names: list[str], split: bool) -> None:
    if settings.nats.url:
        await _run_roles(serve.Host(settings), chosen(settings, names), split)
        return
    settings = embedded.open_to_owner(settings)
    async with embedded.server(settings, embedded.users_of(settings), lasting=True) as opened:
        how = "listens" if opened.broker.owned else "of another `snappy up` listens"
        output.note(f"NATS {how} at {opened.broker.url}; its users' passwords are in {settings.state_dir}/nats")
        workers = [role for role in chosen(settings, names) if role.name]
        async with asyncio.TaskGroup() as group:
            leaving = group.create_task(_leave_with(opened.broker))
            await _run_roles(opened.host, [*opened.roles, *workers], split)
            leaving.cancel()


async def _leave_with(broker: Broker) -> None:
    """A server that was joined takes us with it: another one would listen elsewhere, and know nobody of ours."""
    if not broker.owned:
        await broker.ended()
        raise BusUnavailable("the `snappy up` whose server this one used has ended", hint="start this one again")


async def _run_roles(host: serve.Host, roles: list[serve.Role], split: bool) -> None:
    if not roles:
        raise UsageError("the configuration holds no role", hint="add [core], [source.NAME] or [target.NAME]")
    if split:
        await children.run(host, roles)
        return
    if len(roles) > 1:
        output.note("one process holds all keys and credentials; `snappy up --split` keeps them apart")
    await serve.run(host, roles)


def chosen(settings: Config, names: list[str]) -> list[serve.Role]:
    """The roles that are named, by default all. Raises UsageError for one that the configuration does not hold."""
    known = {str(role).replace(" ", ":"): role for role in serve.roles_of(settings)}
    for name in names:
        if name not in known:
            raise UsageError(f"the configuration holds no role {name!r}", hint=f"it holds: {', '.join(known)}")
    return [known[name] for name in names] if names else list(known.values())
