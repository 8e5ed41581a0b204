"""What several of the acceptance tests begin with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.roles import Ground, standing
from tests.support.stack import site_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """For :func:`tests.support.stack.site_up`."""
    return site_folder(tmp_path)


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    """A server with the deployed roles."""
    async with standing(tmp_path) as made:
        yield made
