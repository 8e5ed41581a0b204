"""Types that many threads meet at the same moment."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from snappy.decoding import converted, from_json, from_msgpack

MEET = """
import sys, threading, types, msgspec
from snappy.decoding import from_msgpack
read = from_msgpack if sys.argv[1] == "ours" else lambda data, kind: msgspec.msgpack.decode(data, type=kind)
sys.setswitchinterval(1e-6)
THREADS, SOURCE = 3, '''
import msgspec
class Inner(msgspec.Struct, array_like=True):
    number: int
    numbers: list[int]
class Outer(msgspec.Struct, array_like=True):
    one: Inner
    many: list[Inner]
    named: dict[str, Inner]
    data: bytes
'''
for number in range(int(sys.argv[2])):
    module = sys.modules[f"types_{number}"] = types.ModuleType(f"types_{number}")
    exec(SOURCE, module.__dict__)
    inner = module.Inner(1, [2])
    data = msgspec.msgpack.encode(module.Outer(inner, [inner], {"name": inner}, b"data"))
    together = threading.Barrier(THREADS)
    def meet():
        together.wait()
        read(data, module.Outer)
    threads = [threading.Thread(target=meet) for _ in range(THREADS)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
"""


def _meet(how: str, rounds: int) -> int:
    return subprocess.run([sys.executable, "-c", MEET, how, str(rounds)], stderr=subprocess.DEVNULL).returncode


def test_threads_that_meet_a_type_together_decode_it() -> None:
    assert _meet("ours", 300) == 0


def test_msgspec_alone_crashes() -> None:
    """Where it no longer does, this module has no reason left."""
    assert _meet("theirs", 3_000) < 0


class Point(msgspec.Struct):
    x: int


def test_what_does_not_fit_is_refused() -> None:
    assert (from_json(b'{"x": 1}', Point), from_json(b"[1]"), converted({"x": 1}, Point)) == (Point(1), [1], Point(1))
    for fault in (
        lambda: from_json(b'{"x": "1"}', Point),
        lambda: from_msgpack(msgspec.msgpack.encode({"x": "1"}), Point),
        lambda: converted({"x": "1"}, Point),
    ):
        with pytest.raises(msgspec.ValidationError):
            fault()
    assert converted({"x": "1"}, Point, strict=False) == Point(1)
