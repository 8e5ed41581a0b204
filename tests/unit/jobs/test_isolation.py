"""The core's process sees neither keys, nor credentials, nor data: it does not even load the code for them."""

from __future__ import annotations

import subprocess
import sys

import pytest

FORBIDDEN = ("snappy.repository", "snappy.sources", "snappy.targets", "fsspec", "s3fs", "pyfastcdc", "zstandard")


@pytest.mark.parametrize("module", ["snappy.jobs.core", "snappy.jobs.audit", "snappy.frontend.api"])
def test_what_the_core_does_not_load(module: str) -> None:
    program = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert module in loaded
    assert [name for name in loaded if name.startswith(FORBIDDEN)] == []
