"""What the tests of faults share."""

from __future__ import annotations

import pytest

from tests.support import tools


@pytest.fixture
def restic() -> str:
    """The program that judges a repository; tests that use it carry the marker ``restic``."""
    program = tools.restic()
    assert program
    return program
