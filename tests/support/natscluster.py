"""A cluster of real nats-servers on the loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from snappy.bus.connection import Bus
from snappy.errors import SnappyError
from tests.support import raw_nats
from tests.support.natsserver import NatsServer
from tests.support.ports import held_ports
from tests.support.roles import Deployment, prepare

READY_SECONDS = 60.0
CLUSTER = """
server_name: {name}
cluster { name: test, listen: "127.0.0.1:{port}", routes: {routes} }
"""
CONFIG = (
    """\
jetstream { store_dir: "{folder}/store", sync_interval: always }
max_payload: 2MB
"""
    + CLUSTER
)


class Cluster:
    """Its servers by name. ``away`` are those that answer nobody now."""

    def __init__(self, servers: dict[str, NatsServer]) -> None:
        self.servers = servers
        self.away: set[str] = set()

    @property
    def url(self) -> str:
        """Of all that answer, with commas between."""
        return ",".join(server.url for name, server in self.servers.items() if name not in self.away)

    async def leader(self, bus: Bus, stream: str) -> str:
        """The name of the server that leads a stream, once there is one."""
        async with asyncio.timeout(30):
            while True:
                try:
                    answer = json.loads(await bus.request(f"$JS.API.STREAM.INFO.{stream}", b"", timeout=2))
                    if leader := answer.get("cluster", {}).get("leader"):
                        return str(leader)
                except SnappyError:
                    pass
                await asyncio.sleep(0.1)

    async def ready(self, bus: Bus) -> None:
        """Until JetStream answers."""
        async with asyncio.timeout(30):
            while True:
                try:
                    if "error" not in json.loads(await bus.request("$JS.API.INFO", b"", timeout=2)):
                        return
                except SnappyError:
                    pass
                await asyncio.sleep(0.1)


@contextmanager
def nats_cluster(folder: Path, size: int = 3, text: str = CONFIG) -> Iterator[Cluster]:
    """``size`` servers, whose files lie in ``folder``; ``text`` has places for what each has of its own."""
    with held_ports(size) as routes, held_ports(size) as clients, ExitStack() as stack:
        servers = {}
        for number in range(size):
            name = f"n{number + 1}"
            (folder / name).mkdir()
            others = json.dumps([f"nats://127.0.0.1:{port}" for port in routes])
            own = {"name": name, "folder": folder / name, "port": routes[number], "routes": others}
            servers[name] = NatsServer(filled(text, own), folder / name, clients[number])
            stack.callback(servers[name].stop)
        yield Cluster(servers)


@contextmanager
def deployed_cluster(folder: Path, size: int = 3) -> Iterator[Deployment]:
    """Servers under ``deploy/nats.conf``, each of which would do alone; ready for streams when the context begins."""
    text = prepare(folder).replace(f"{folder}/store", "{folder}/store")
    text = text.replace("./secrets.conf", "../secrets.conf")
    with nats_cluster(folder, size, text + CLUSTER) as cluster:
        made: Any = cluster
        deployment = Deployment(made, folder)
        asyncio.run(_ready(deployment))
        yield deployment


def filled(text: str, own: Mapping[str, object]) -> str:
    """``text`` with its places filled. Braces are the configuration's own, so ``str.format`` is no help."""
    for name, value in own.items():
        text = text.replace("{" + name + "}", str(value))
    return text


async def _ready(deployment: Deployment) -> None:
    """Until JetStream has a leader."""
    password = deployment.password_file("core").read_text()
    async with asyncio.timeout(READY_SECONDS):
        while not await _has_leader(deployment.url.split(",")[0], password):
            await asyncio.sleep(0.1)


async def _has_leader(url: str, password: str) -> bool:
    try:
        async with raw_nats.connect(url, "core", password) as client:
            return "error" not in json.loads((await client.request("$JS.API.INFO", b"", timeout=2.0)).body)
    except (OSError, TimeoutError, EOFError, ValueError, raw_nats.ServerError):
        return False
