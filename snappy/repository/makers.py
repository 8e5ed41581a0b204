"""Functions named as ``module:name``: how one process tells another what to call. Only for what our own processes
say to each other, never for what comes from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any


def name_of(maker: Callable[..., Any]) -> str:
    """The name under which another process finds the function or class."""
    return f"{maker.__module__}:{maker.__qualname__}"


@lru_cache
def find(maker: str) -> Callable[..., Any]:
    """What that name stands for here."""
    module, _, name = maker.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found
