"""From the configuration to nats-py's options; what must not be in a message is not."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from snappy.bus import login
from snappy.config import Nats, Secret
from snappy.errors import UsageError


def test_several_servers() -> None:
    assert login.servers("nats://a:1, nats://b:2") == ["nats://a:1", "nats://b:2"]


def test_no_server() -> None:
    with pytest.raises(UsageError, match="no NATS server"):
        login.servers("")


@pytest.mark.parametrize("url", ["nats://alice:secret@a:1", "alice:secret@a:1"])
def test_credentials_do_not_belong_in_an_address(url: str) -> None:
    with pytest.raises(UsageError, match="a:1") as caught:
        login.servers(url)
    assert "secret" not in str(caught.value)
    assert "alice" not in str(caught.value)


def test_password_and_private_inbox(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    chosen = login.options(Nats(url="a:1", user="alice", password=Secret(file=str(tmp_path / "password"))), "alice")
    assert (chosen["user"], chosen["password"], chosen["inbox_prefix"]) == ("alice", "secret", "_INBOX.alice")
    assert chosen["max_reconnect_attempts"] == -1
    assert "tls" not in chosen


def test_a_seed_comes_before_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEED", "SUA")
    chosen = login.options(
        Nats(url="a:1", user="alice", nkey_seed=Secret(env="SEED"), password=Secret(env="X")), "alice"
    )
    assert chosen["nkeys_seed_str"] == "SUA"
    assert "password" not in chosen


def test_tls_is_asked_for_by_the_address() -> None:
    context = login.options(Nats(url="tls://a:1"), "anyone")["tls"]
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def test_a_certificate_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="TLS files"):
        login.options(Nats(url="a:1", tls_ca="/nowhere/ca.pem"), "anyone")


def test_a_caller_is_a_token() -> None:
    assert login.caller(Nats(user="alice"), "") == "alice"
    assert login.caller(Nats(), "site1") == "site1"
    with pytest.raises(UsageError):
        login.caller(Nats(user="a.b"), "")
