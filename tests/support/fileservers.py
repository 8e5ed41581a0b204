"""A file server that runs on an event loop of its own, in a thread, for tests that are not coroutines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from snappy import config
from snappy.bus.connection import Bus
from snappy.bus.fileserver import FileServer
from snappy.targets.policy import PolicyFileSystem

ALL_RIGHTS = "rlwWd"


@contextmanager
def running_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def served(files: PolicyFileSystem, url: str, target: str, **options: Any) -> Iterator[FileServer]:
    """``files`` as ``target`` on the NATS server at ``url``."""
    with running_loop() as loop:
        run = lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(30)  # noqa: E731
        bus = run(Bus.connect(config.Nats(url=url), name="target", user=target))
        server = FileServer(bus, files, target=target, **options)
        run(server.start())
        try:
            yield server
        finally:
            run(server.close())
            run(bus.drain())
