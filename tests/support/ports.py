"""Free ports of the loopback, that no other process takes between their choice and their use, or while their server
is down."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def held_ports(count: int) -> Iterator[list[int]]:
    """Ports held by sockets that listen to nobody: who asks for any free port gets another, and who asks for this very
    one and sets SO_REUSEADDR, as servers in Go and asyncio's do, may listen there (socket(7), Linux)."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind(("127.0.0.1", 0))
        yield [each.getsockname()[1] for each in sockets]
