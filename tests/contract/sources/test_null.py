"""The plug-in ``null`` in the contract: what counts is how many bytes came and went."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.source_contract import LARGE, Ground, Refused, SourceContract


class NullGround:
    plugin = "null"
    changes_share = None
    works_in_folder = False

    def __init__(self) -> None:
        self._size = 0

    def settings(self) -> dict[str, dict[str, Any]]:
        return {}

    def options(self) -> dict[str, Any]:
        return {"size": self._size, "compressible": 0.0}

    def restore_options(self, other: bool) -> dict[str, Any]:
        return {}

    def restore_into(self, folder: Path) -> dict[str, Any] | None:
        return None

    def fill(self, size: int) -> None:
        self._size = size

    def change(self, share: float) -> None:
        self._size += int(share * LARGE)

    @contextmanager
    def writing(self) -> Iterator[Callable[[], int]]:
        yield itertools.count().__next__

    def wipe(self) -> None: ...

    def check(self, other: bool) -> None: ...

    def content(self, other: bool) -> Any:
        return None

    def leftovers(self) -> list[str]:
        return []

    def refused(self) -> Sequence[Refused]:
        return [Refused("an option that there is not", "bad-options", {"sise": 1})]


@pytest.fixture(scope="module")
def ground() -> Ground:
    return NullGround()


class TestNull(SourceContract):
    """All that is asked of it."""
