"""What the tests against the real restic share."""

from __future__ import annotations

import pytest

from tests.support.restic import PROGRAMS


@pytest.fixture(params=PROGRAMS)
def restic_program(request: pytest.FixtureRequest) -> str:
    """The path of a restic program; the test runs once for each there is."""
    program: str = request.param
    return program
