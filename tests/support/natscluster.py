"""A cluster of real nats-servers on the loopback."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from snappy.bus.connection import Bus
from snappy.errors import SnappyError
from tests.support.natsserver import NatsServer

CONFIG = """\
server_name: {name}
jetstream {{ store_dir: "{folder}/store", sync_interval: always }}
max_payload: 2MB
cluster {{ name: test, listen: "127.0.0.1:{port}", routes: {routes} }}
"""


class Cluster:
    """Its servers by name."""

    def __init__(self, servers: dict[str, NatsServer]) -> None:
        self.servers = servers

    @property
    def url(self) -> str:
        """Of any: clients learn the others from it."""
        return next(iter(self.servers.values())).url

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
def nats_cluster(folder: Path, size: int = 3) -> Iterator[Cluster]:
    """``size`` servers, whose files lie in ``folder``."""
    routes = _free_ports(size)
    clients = _free_ports(size)
    with ExitStack() as stack:
        servers = {}
        for number in range(size):
            name = f"n{number + 1}"
            (folder / name).mkdir()
            others = json.dumps([f"nats://127.0.0.1:{port}" for port in routes])
            text = CONFIG.format(name=name, folder=folder / name, port=routes[number], routes=others)
            servers[name] = NatsServer(text, folder / name, clients[number])
            stack.callback(servers[name].stop)
        yield Cluster(servers)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
