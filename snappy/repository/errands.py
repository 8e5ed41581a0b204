"""What a worker process of a pool does: errands, several at a time, until there are no more."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

from snappy.errors import Interrupted
from snappy.repository.link import Brought, Errand, Flush, Notice, Stop, ToWorker, WorkerLink
from snappy.repository.store import Store
from snappy.repository.worker_process import listen


class Errands:
    """Does what ``link`` says, each with ``do`` in one of some ``threads``. ``do`` is to call :meth:`check` often."""

    def __init__(self, link: WorkerLink, store: Store, do: Callable[[bytes], bytes], threads: int) -> None:
        self._link, self._store, self._do = link, store, do
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="errand")
        self._orders: SimpleQueue[Errand | Flush | BaseException] = SimpleQueue()
        self._stopped: Interrupted | None = None

    def run(self) -> None:
        """Until all is done, or given up. Raises what fails."""
        listen(self._link, self._heed)
        try:
            while isinstance(order := self._orders.get(), Errand):
                self._threads.submit(self._run, order).add_done_callback(self._done)
        finally:
            self._threads.shutdown(cancel_futures=not isinstance(order, Flush))
        if isinstance(order, BaseException):
            raise order

    def check(self) -> None:
        """Raises :class:`Interrupted` once the work is given up."""
        if self._stopped:
            raise self._stopped

    def _heed(self, message: ToWorker) -> None:
        if isinstance(message, Notice):
            self._store.told(message.body)
        elif isinstance(message, Stop):
            self._stopped = Interrupted("the work is given up")
            self._orders.put(self._stopped)
        elif isinstance(message, (Errand, Flush)):
            self._orders.put(message)

    def _run(self, errand: Errand) -> None:
        self._link.send(Brought(self._do(errand.body)))

    def _done(self, done: Future[None]) -> None:
        if not done.cancelled() and (error := done.exception()):
            self._orders.put(error)
