"""A nats-server with the roles of ``deploy/nats.conf``, and a way in for each of its users."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from snappy import config
from snappy.bus import roles, streams
from snappy.bus.connection import Bus
from snappy.bus.subjects import Subjects
from tests.support.natsserver import NatsServer, nats_server

DEPLOYED = Path(__file__).parents[2] / "deploy" / "nats.conf"
MACHINE = {
    'store_dir: "/var/lib/nats"': 'store_dir: "{folder}/store"',
    'http: "127.0.0.1:8222"': 'http: "127.0.0.1:-1"',
}
"""What of the file belongs to the operator's machine, and what stands for it here."""


@dataclass(frozen=True)
class Deployment:
    """A running server."""

    server: NatsServer
    folder: Path

    @property
    def url(self) -> str:
        return self.server.url

    def nats(self, user: str) -> config.Nats:
        return config.Nats(url=self.url, user=user, password=config.Secret(file=str(self.password_file(user))))

    def password_file(self, user: str) -> Path:
        return self.folder / f"{user}.password"

    @asynccontextmanager
    async def bus(self, user: str) -> AsyncIterator[Bus]:
        """A connection of ``user``, drained at the end."""
        bus = await Bus.connect(self.nats(user), name=user)
        try:
            yield bus
        finally:
            await bus.drain()


@contextmanager
def deployed(folder: Path, names: Sequence[tuple[roles.Role, str]] = roles.EXAMPLE) -> Iterator[Deployment]:
    """``deploy/nats.conf`` as it lies there for the example's users; made by the same generator for others."""
    with nats_server(folder, prepare(folder, names)) as server:
        yield Deployment(server, folder)


def prepare(folder: Path, names: Sequence[tuple[roles.Role, str]] = roles.EXAMPLE) -> str:
    """The text of a server's configuration; its users' passwords are written to ``folder``, as are its files."""
    text = DEPLOYED.read_text() if names == roles.EXAMPLE else _made(names)
    for theirs, ours in MACHINE.items():
        assert theirs in text
        text = text.replace(theirs, ours.format(folder=folder))
    lines = []
    for _, name in names:
        password = secrets.token_hex(16)
        (folder / f"{name}.password").touch(mode=0o600)
        (folder / f"{name}.password").write_text(password)
        lines.append(f'{name.replace("-", "_")}_password: "{password}"\n')
    (folder / "secrets.conf").write_text("".join(lines))
    return text


def _made(names: Sequence[tuple[roles.Role, str]]) -> str:
    return roles.deployment(roles.example_users(names), Subjects())


USERS: tuple[tuple[roles.Role, str], ...] = (
    ("core", "core"),
    ("audit", "audit"),
    ("source", "site1"),
    ("source", "site2"),
    ("target", "vault"),
    ("target", "cellar"),
    ("submitter", "alice"),
    ("submitter", "bob"),
    ("observer", "watcher"),
)
VICTIM = "$KV.snappy_jobs.victim"


class Ground:
    """Every user's connection, and what the streams hold."""

    def __init__(self, buses: dict[str, Bus]) -> None:
        self._buses = buses
        self.core = buses["core"]
        self.subjects = self.core.subjects

    def __getitem__(self, user: str) -> Bus:
        return self._buses[user]

    async def stored(self) -> dict[str, tuple[int, int]]:
        """Of each stream: its last sequence and how many messages it holds."""
        names = [stream.name for stream in [*streams.streams(self.subjects), *streams.buckets(self.subjects)]]
        return {name: await self._state(name) for name in names}

    async def _state(self, stream: str) -> tuple[int, int]:
        answer = json.loads(await self.core.request(f"$JS.API.STREAM.INFO.{stream}", b"", timeout=5))
        return answer["state"]["last_seq"], answer["state"]["messages"]


@asynccontextmanager
async def standing(folder: Path) -> AsyncIterator[Ground]:
    """A server with all of :data:`USERS` connected, every stream made, and one record to attack."""
    with deployed(folder, USERS) as server:
        async with AsyncExitStack() as stack:
            buses = {name: await stack.enter_async_context(server.bus(name)) for _, name in USERS}
            await streams.ensure(buses["core"])
            for site in ("site1", "site2"):
                await streams.ensure_work_consumer(buses["core"], site)
            await buses["core"].store(VICTIM, b"good")
            yield Ground(buses)


async def expect_only(ground: Ground, before: dict[str, tuple[int, int]], grown: dict[str, int]) -> None:
    """Each stream has exactly so many messages more."""
    after = await ground.stored()
    assert {name: after[name][0] - before[name][0] for name in after} == dict.fromkeys(after, 0) | grown
    assert {name: after[name][1] - before[name][1] for name in after} == dict.fromkeys(after, 0) | grown
