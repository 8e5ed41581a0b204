"""The allocator is told once, the smallest word holds, and it is told only where it listens."""

from __future__ import annotations

import ctypes
import gc
import weakref
from types import SimpleNamespace

import pytest

from snappy import heap


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_said", [])


def test_the_smallest_word_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    library = SimpleNamespace(mallopt=lambda *setting: told.append(setting) or 1)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    for large in (heap.FOR_FRAMES, heap.FOR_FRAMES, heap.FOR_PACKS, heap.FOR_FRAMES):
        assert heap.tune(large)
    rest = [(heap.TRIM_THRESHOLD, heap.KEPT), (heap.ARENA_MAX, heap.ARENAS)]
    assert told == [(heap.MMAP_THRESHOLD, heap.FOR_FRAMES), *rest, (heap.MMAP_THRESHOLD, heap.FOR_PACKS), *rest]


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda name: asked.append(name) or SimpleNamespace())
    assert not heap.tune(heap.FOR_PACKS)
    assert asked == [None]


def test_what_is_free_is_given_back_where_that_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(malloc_trim=asked.append))
    heap.give_back()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    heap.give_back()
    assert asked == [0]


def test_what_only_refers_to_itself_is_let_go() -> None:
    class Ring:
        def __init__(self) -> None:
            self.own = self

    gc.disable()  # nobody else may find it
    try:
        left = weakref.ref(Ring())
        assert left() is not None
        heap.let_go()
        assert left() is None
    finally:
        gc.enable()
