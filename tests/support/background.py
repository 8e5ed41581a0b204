"""What goes on in a thread of its own, whatever a test does: an event loop, or something done over and over."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def loop_in_thread() -> Iterator[asyncio.AbstractEventLoop]:
    """A running loop, for the length of the context; give it work by ``asyncio.run_coroutine_threadsafe``."""
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
def repeated(work: Callable[[int], object], until: type[Exception] | None = None) -> Iterator[Callable[[], int]]:
    """Do ``work``, which is told how often it was done, again and again for the length of the context, or ``until`` it
    raises that; the value says how often."""
    over, done = threading.Event(), 0

    def repeat() -> None:
        nonlocal done
        with suppress(*filter(None, [until])):
            while not over.is_set():
                work(done)
                done += 1

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield lambda: done
    finally:
        over.set()
        thread.join()
