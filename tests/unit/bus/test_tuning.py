"""The knobs that tuning turns are still there in this nats-py, and take hold."""

from __future__ import annotations

import subprocess
import sys

PROBE = """
import nats.aio.client
from snappy.bus import tuning
assert nats.aio.client.DEFAULT_BUFFER_SIZE == 32768
assert tuning.tune_process()
assert nats.aio.client.DEFAULT_BUFFER_SIZE == tuning.BUFFER_BYTES
import inspect
assert "DEFAULT_BUFFER_SIZE" in inspect.getsource(nats.aio.client.Client._read_loop)
"""


def test_tuning_takes_hold() -> None:
    subprocess.run([sys.executable, "-c", PROBE], check=True)
