"""Keeps a process from loading what its libraries would use if it were there, and Snappy never needs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """What is imported in the block takes these optional packages for not installed, unless they are loaded already."""
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: the import fails, by Python's rules
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
