"""The allocator is told once, and only where it listens."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from snappy import heap


@pytest.fixture(autouse=True)
def _forgetful() -> Iterator[None]:
    heap.tune.cache_clear()
    yield
    heap.tune.cache_clear()


def test_it_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    library = SimpleNamespace(mallopt=lambda *setting: told.append(setting) or 1)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    heap.tune()
    heap.tune()
    assert told == [(heap.MMAP_THRESHOLD, heap.LARGE), (heap.TRIM_THRESHOLD, heap.KEPT), (heap.ARENA_MAX, heap.ARENAS)]


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda name: asked.append(name) or SimpleNamespace())
    heap.tune()
    assert asked == [None]
