"""What processes do not load: it costs each command its time, and each service its memory for as long as it stands."""

from __future__ import annotations

import subprocess
import sys

import pytest

from snappy import lean

FOR_TERMINALS = {"rich"}
FOR_WEBSOCKETS = {"aiohttp"}
OF_SERVICES = {"cryptography", "fsspec", "snappy.serve", "snappy.bus.broker", "snappy.repository", "snappy.sources"}


def test_a_package_is_hidden_for_as_long_as_the_block_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with lean.without("colorsys"), pytest.raises(ImportError):
        import colorsys
    import colorsys

    with lean.without("colorsys"):
        import colorsys as again
    assert again is colorsys


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        ("snappy.cli.main", FOR_TERMINALS | OF_SERVICES | {"nats"}),
        ("snappy.cli.session", FOR_TERMINALS | FOR_WEBSOCKETS | OF_SERVICES),
        ("snappy.serve, snappy.jobs.core", FOR_TERMINALS | FOR_WEBSOCKETS),
        ("snappy.serve, snappy.jobs.audit", FOR_TERMINALS | FOR_WEBSOCKETS),
        ("snappy.serve, snappy.targets.service", FOR_TERMINALS | FOR_WEBSOCKETS),
        ("snappy.serve, snappy.sources.service", FOR_TERMINALS | FOR_WEBSOCKETS),
    ],
)
def test_what_a_process_does_not_load(modules: str, unwanted: set[str]) -> None:
    program = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert unwanted & set(done.stdout.split()) == set()
