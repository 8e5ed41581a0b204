"""Secrets from a file, the environment and a command; none of them ends up in an error."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from snappy.config import Secret
from snappy.errors import UsageError
from snappy.secrets import read


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.touch(mode=0o600)
    return path


@pytest.mark.parametrize(
    ("written", "secret"),
    [
        ("word", "word"),
        ("word\n", "word"),
        ("word\r\n", "word"),
        ("word\n\n", "word\n"),
        (" word ", " word "),
        ("", ""),
    ],
)
def test_one_newline_at_the_end_is_not_the_secrets(file: Path, written: str, secret: str) -> None:
    file.write_bytes(written.encode())
    assert read(Secret(file=str(file))) == secret


@pytest.mark.parametrize(
    ("mode", "warned"), [(0o600, False), (0o400, False), (0o640, False), (0o644, True), (0o660, True)]
)
def test_a_file_open_to_others_is_told(file: Path, mode: int, warned: bool) -> None:
    file.write_text("word")
    file.chmod(mode)
    with capture_logs() as lines:
        assert read(Secret(file=str(file))) == "word"
    assert bool(lines) is warned
    assert "word" not in str(lines)


def test_environment() -> None:
    assert read(Secret(env="NAME"), {"NAME": "word"}) == "word"
    with pytest.raises(UsageError, match="NAME"):
        read(Secret(env="NAME"), {})


def test_a_command_runs_without_a_shell() -> None:
    assert read(Secret(command="printf '%s\\n' '$HOME;true'")) == "$HOME;true"


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        (Secret(command="sh -c 'echo word; exit 3'"), "status 3"),
        (Secret(command="/nowhere/program"), "No such file"),
        (Secret(command="unfinished 'quote"), "quotation"),
        (Secret(file="/nowhere/file"), "No such file"),
        (Secret(file="/"), "directory"),
    ],
)
def test_what_cannot_be_read_is_said_without_the_secret(secret: Secret, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        read(secret)
    assert "word" not in caught.value.message.replace(secret.command, "")


def test_a_file_that_is_no_text(file: Path) -> None:
    file.write_bytes(b"\xff\xfeword")
    with pytest.raises(UsageError, match="UTF-8") as caught:
        read(Secret(file=str(file)))
    assert "word" not in str(caught.value)
