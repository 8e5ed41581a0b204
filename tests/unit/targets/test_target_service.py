"""The target's gate: what a grant of the core lets through, and when no longer."""

from __future__ import annotations

from typing import Any

import pytest

from snappy.bus.grants import Grant, GrantChecker, SigningKey
from snappy.config import Secret, TargetService
from snappy.errors import AccessDenied, AttemptOver, UsageError
from snappy.targets import service
from snappy.targets.service import grant_gate

KEY = SigningKey.generate()
GRANT = Grant(job="job-1", attempt=1, caller="site", target="vault", rights="rl", expires=1000.0)


class Clock:
    now = 990.0

    def __call__(self) -> float:
        return self.now


def test_a_grant_lets_its_caller_do_what_it_names_until_it_runs_out() -> None:
    clock = Clock()
    gate = grant_gate(GrantChecker(KEY.public_text()), "vault", clock)
    gate(KEY.sign(GRANT), "site", "r")
    with pytest.raises(AccessDenied):
        gate(KEY.sign(GRANT), "site", "w")
    with pytest.raises(AccessDenied):
        gate(KEY.sign(GRANT), "other", "r")
    with pytest.raises(AccessDenied):
        gate("", "site", "r")
    with pytest.raises(AccessDenied):
        gate(SigningKey.generate().sign(GRANT), "site", "r")
    clock.now = 1000.0
    with pytest.raises(AttemptOver):
        gate(KEY.sign(GRANT), "site", "r")


def test_a_grant_for_another_target_opens_nothing() -> None:
    gate = grant_gate(GrantChecker(KEY.public_text()), "safe", Clock())
    with pytest.raises(AccessDenied):
        gate(KEY.sign(GRANT), "site", "r")


def test_a_target_needs_the_cores_public_key(monkeypatch: pytest.MonkeyPatch) -> None:
    bus: Any = None
    with pytest.raises(UsageError, match="core_public_key") as caught:
        service.TargetService(bus, "vault", TargetService(url="memory://x"))
    assert "snappy keygen" in caught.value.hint
    monkeypatch.setenv("CORE_PUBLIC", KEY.public_text())
    service.TargetService(bus, "vault", TargetService(url="memory://x", core_public_key=Secret(env="CORE_PUBLIC")))
