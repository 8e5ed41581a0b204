"""A grant holds for one caller, one target, its rights and its time; anything else is refused."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snappy.bus.grants import RIGHTS_BACKUP, Grant, GrantChecker, SigningKey
from snappy.errors import AccessDenied, AttemptOver, UsageError

KEY = SigningKey.generate()
GRANT = Grant(job="j", attempt=2, caller="site1", target="vault", rights=RIGHTS_BACKUP, expires=100.0)


def check(text: str, *, caller: str = "site1", target: str = "vault", right: str = "w", now: float = 99.0) -> Grant:
    return GrantChecker(KEY.public_text()).check(text, caller=caller, target=target, right=right, now=now)


def test_holds_for_what_it_says() -> None:
    assert check(KEY.sign(GRANT)) == GRANT


@pytest.mark.parametrize(
    "difference",
    [{"caller": "site2"}, {"target": "other"}, {"right": "d"}, {"right": "W"}],
    ids=lambda d: next(iter(d)),
)
def test_holds_for_nothing_else(difference: dict[str, str]) -> None:
    with pytest.raises(AccessDenied):
        check(KEY.sign(GRANT), **difference)  # type: ignore[arg-type]


@pytest.mark.parametrize("now", [100.0, 100.5, 1e12])
def test_runs_out(now: float) -> None:
    with pytest.raises(AttemptOver):
        check(KEY.sign(GRANT), now=now)


def test_runs_out_although_it_was_checked_before() -> None:
    checker = GrantChecker(KEY.public_text())
    text = KEY.sign(GRANT)
    checker.check(text, caller="site1", target="vault", right="r", now=99.0)
    with pytest.raises(AttemptOver):
        checker.check(text, caller="site1", target="vault", right="r", now=100.0)


def test_another_cores_signature_is_refused() -> None:
    with pytest.raises(AccessDenied):
        check(SigningKey.generate().sign(GRANT))


def test_changed_content_under_a_true_signature_is_refused() -> None:
    _, signature = KEY.sign(GRANT).split(".")
    body, _ = SigningKey.generate().sign(msgspec.structs.replace(GRANT, rights="rlwWd")).split(".")
    with pytest.raises(AccessDenied):
        check(f"{body}.{signature}")


@given(st.one_of(st.text(max_size=60), st.binary(max_size=60).map(lambda raw: raw.decode("latin-1"))))
def test_rubbish_is_refused_with_our_error(text: str) -> None:
    with pytest.raises(AccessDenied):
        check(text)


def test_a_key_survives_its_text_form() -> None:
    assert SigningKey.from_text(KEY.to_text()).public_text() == KEY.public_text()


@pytest.mark.parametrize("text", ["", "short", "*" * 43, "é" * 43])
def test_a_bad_key_is_named(text: str) -> None:
    with pytest.raises(UsageError):
        SigningKey.from_text(text)
