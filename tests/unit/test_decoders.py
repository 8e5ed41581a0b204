from __future__ import annotations

import subprocess
import sys

import pytest

FIRST_USES = """
import sys, threading, msgspec
from snappy import decoders

def meet(number):
    inner = msgspec.defstruct(f"Inner{number}", [(f"f{each}", list[dict[str, int]] | None, None) for each in range(20)])
    outer = msgspec.defstruct(f"Outer{number}", [("a", inner), ("b", list[inner])])
    start = threading.Barrier(4)
    def use():
        start.wait()
        decoders.FORMAT(outer).decode(body)
    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()

sys.setswitchinterval(1e-6)
body = msgspec.FORMAT.encode({"a": {}, "b": [{}]})
for number in range(100):
    meet(number)
"""


@pytest.mark.parametrize("format", ["json", "msgpack"])
def test_threads_may_use_a_struct_for_the_first_time_at_once(format: str) -> None:
    subprocess.run([sys.executable, "-c", FIRST_USES.replace("FORMAT", format)], check=True)
