"""Carries finished packs to the store in a few threads, with a bound on how many wait in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from snappy.errors import InternalError
from snappy.repository.pack import PackBuilder

THREADS = 2
IN_FLIGHT = 2
"""None waits for a thread: that would cost a pack's memory and save no time."""

Upload = Callable[[PackBuilder], None]


class PackUploader:
    """Runs ``upload`` for each builder in a pool; the first failure stops everything after it.

    ``put`` blocks while ``in_flight`` packs wait or travel, which bounds the memory to that many packs.
    """

    def __init__(self, upload: Upload, in_flight: int = IN_FLIGHT) -> None:
        self._upload = upload
        self._pool = ThreadPoolExecutor(min(THREADS, in_flight), thread_name_prefix="pack-upload")
        self._free = threading.Semaphore(in_flight)
        self._idle = threading.Condition()
        self._running = 0
        self._failure: BaseException | None = None

    def put(self, builder: PackBuilder) -> None:
        """Hand over a pack. Raises the error of an earlier upload."""
        self._free.acquire()
        try:
            self.raise_failure()
            with self._idle:
                self._pool.submit(self._run, builder)
                self._running += 1
        except BaseException:
            self._free.release()
            raise

    @property
    def on_their_way(self) -> int:
        """How many packs were handed over and have not arrived."""
        return self._running

    def wait(self, left: int = 0) -> None:
        """Return when no more than so many packs are on their way. Raises the error of the first upload that failed,
        at once."""
        with self._idle:
            self._idle.wait_for(lambda: self._running <= left or self._failure is not None)
        self.raise_failure()

    def fail(self, error: BaseException) -> None:
        """Let nothing be written any more; ``error`` is what the callers will see, unless one came before."""
        with self._idle:
            self._failure = self._failure or error
            self._idle.notify_all()

    def raise_failure(self) -> None:
        """Raise the error of the first upload that failed, if one did."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Let what travels arrive, drop what waits, and end the threads; may be called twice."""
        self.fail(InternalError("the repository is closed"))
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, builder: PackBuilder) -> None:
        try:
            if self._failure is None:
                self._upload(builder)
        except BaseException as error:
            self.fail(error)
        finally:
            self._free.release()
            with self._idle:
                self._running -= 1
                self._idle.notify_all()
