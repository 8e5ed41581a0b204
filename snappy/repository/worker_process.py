"""A worker process, from its start to its end: it learns what it is to work with, and does what it was made for.

The first worker makes the others, by forking before it has any thread: so they share what was imported. When the
socket to the process that it works for ends, so does the worker, wherever it is.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from snappy import heap, log
from snappy.decoding import from_msgpack
from snappy.errors import SnappyError
from snappy.repository import makers
from snappy.repository.link import Died, Ended, Failed, Ready, Setup, ToWorker, WorkerLink
from snappy.repository.store import Store


def listen(link: WorkerLink, heed: Callable[[ToWorker], None]) -> None:
    """Hand all that is said to this worker to ``heed``, in a thread of its own."""
    threading.Thread(target=_listen, args=(link, heed), name="orders", daemon=True).start()


def _listen(link: WorkerLink, heed: Callable[[ToWorker], None]) -> None:
    try:
        while True:
            heed(link.receive())
    except (EOFError, OSError):
        os._exit(1)  # nobody is left to work for
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _failure(error: BaseException) -> Failed:
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, SnappyError):
        return Failed(error.code, error.message, error.hint, trace)
    return Failed("internal", f"unexpected {type(error).__name__} in a worker process", "", trace)


def _set_up() -> Setup:
    """What standard input says, with everything loaded that each worker needs."""
    heap.tune(heap.FOR_FRAMES)  # before there are threads: each would have an arena of its own
    setup = from_msgpack(sys.stdin.buffer.read(), Setup)
    makers.find(setup.store_maker)
    makers.find(setup.work)
    if setup.niceness:
        os.nice(setup.niceness)
    heap.collect_seldom()
    gc.freeze()
    return setup


def _multiply(ends: Sequence[int]) -> tuple[int, dict[int, int]]:
    """Make a process for each end but the first. Returns the end that is this one's to serve, and, in the first alone,
    the numbers of the others by their process ids. The ends of those that cannot be made are closed."""
    others: dict[int, int] = {}
    with suppress(OSError):
        for number, end in enumerate(ends[1:], 1):
            process = os.fork()
            if not process:
                _close(other for other in ends if other != end)
                return end, {}
            others[process] = number
    _close(ends[1:])
    return ends[0], others


def _close(ends: Iterable[int]) -> None:
    for end in ends:
        os.close(end)


def _bury(link: WorkerLink, others: dict[int, int]) -> None:
    """Wait for the others' ends, and tell of those that were not meant."""
    while others:
        process, status = os.wait()
        number = others.pop(process)
        if status:
            with suppress(OSError):
                link.send(Died(number, os.waitstatus_to_exitcode(status)))


def _serve(link: WorkerLink, setup: Setup) -> None:
    try:
        link.send(Ready(os.getpid()))
        try:
            store: Store = makers.find(setup.store_maker)(**setup.store_arguments)
            makers.find(setup.work)(link, setup, store)
        except Exception as error:
            link.send(_failure(error))
        link.send(Ended())
    except (EOFError, OSError):
        pass  # nobody is left to tell


def main(ends: Sequence[int]) -> None:
    """Be as many workers as there are ``ends``: descriptors of the sockets to the process that they work for. Signals
    that end a whole group are that one's to heed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    log.setup("warning")
    setup = _set_up()
    end, others = _multiply(ends)
    link = WorkerLink(socket.socket(fileno=end))
    burying = threading.Thread(target=_bury, args=(link, others), name="bury", daemon=True)
    burying.start()
    _serve(link, setup)
    burying.join()
    sys.stderr.flush()
    os._exit(0)  # connections may still have threads


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]])
