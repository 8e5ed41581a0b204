"""``snappy`` with its sealing taken out, for the one test that must see plain data cross: it shows that the other
tests would notice. Not for any repository that matters.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from snappy.cli.main import main
from snappy.repository import worker_process, worker_processes
from snappy.repository.crypto import IV_SIZE, MAC_SIZE, SealingKey

WORKER = "worker"
"""The first word of the command line of its worker processes."""


def seal_all(_self: SealingKey, messages: Sequence[bytes], _random: Callable[[int], bytes] = os.urandom) -> list[bytes]:
    return [bytes(IV_SIZE) + data + bytes(MAC_SIZE) for data in messages]


def unseal(_self: SealingKey, sealed: bytes | memoryview) -> bytes:
    return bytes(sealed)[IV_SIZE:-MAC_SIZE]


if __name__ == "__main__":
    SealingKey.seal_all = seal_all  # type: ignore[method-assign]
    SealingKey.open = unseal  # type: ignore[method-assign]
    if sys.argv[1] == WORKER:
        worker_process.main([int(word) for word in sys.argv[2:]])
    worker_processes.PROGRAM = [sys.executable, __file__, WORKER]
    sys.exit(main())
