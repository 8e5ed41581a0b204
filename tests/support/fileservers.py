"""A file server that runs on an event loop of its own, in a thread, for tests that are not coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from snappy import config
from snappy.bus.connection import Bus
from snappy.bus.fileserver import FileServer
from snappy.targets.policy import PolicyFileSystem
from tests.support.background import loop_in_thread

ALL_RIGHTS = "rlwWd"


@contextmanager
def served(files: PolicyFileSystem, url: str, target: str, **options: Any) -> Iterator[FileServer]:
    """``files`` as ``target`` on the NATS server at ``url``."""
    with loop_in_thread() as loop:
        run = lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(30)  # noqa: E731
        bus = run(Bus.connect(config.Nats(url=url), name="target", user=target))
        server = FileServer(bus, files, target=target, **options)
        run(server.start())
        try:
            yield server
        finally:
            run(server.close())
            run(bus.drain())
