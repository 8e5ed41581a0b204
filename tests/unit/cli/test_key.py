"""``snappy key``: from words to a command, and from a result to what is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from snappy.cli import embedded, follow, key, keyed, passwords
from snappy.cli.main import _parser
from snappy.cli.session import Session
from snappy.errors import UsageError
from snappy.jobs.messages import JobRecord, Result
from snappy.jobs.result_words import KeyRow, Keys
from snappy.jobs.states import State
from snappy.jobs.upkeep import KeyCommand

SESSION = Session(None, source="site1", target="vault", key="default", embedded=False)  # type: ignore[arg-type]
NAMES = {"source": "site1", "target": "vault", "key": "default"}
ROWS = [
    KeyRow(id="ab" * 32, user="joe", host="moon", created="2026-01-02T03:04:05.123456789Z", current=True),
    KeyRow(id="cd" * 32, user="", host="", created="some day", current=False),
]


def fields(*words: str, session: Session = SESSION) -> dict[str, Any]:
    return key.fields(session, _parser().parse_args(["key", words[0], "--target", "vault", *words[1:]]))


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ("list", {"action": "list"}),
        ("add --new-key next --user joe --host moon", {"new_key": "next", "user": "joe", "host": "moon"}),
        ("remove 0123abcd", {"id": "0123abcd"}),
        ("change --new-key next", {"new_key": "next"}),
        ("passwd --new-key next", {"action": "change", "new_key": "next"}),
    ],
)
def test_commands(words: str, given: dict[str, str]) -> None:
    command = fields(*words.split())
    assert command == {**NAMES, "action": words.split()[0], **given}
    msgspec.convert(command, KeyCommand)


@pytest.mark.parametrize(
    "words", ["add", "change --new-password-file new", "add --new-key next --new-password-file new"]
)
def test_a_new_password_is_the_source_services(words: str) -> None:
    with pytest.raises(UsageError):
        fields(*words.split())


def test_without_a_server_the_new_key_has_a_name_of_its_own() -> None:
    command = fields("add", "--new-password-file", "new", session=replace(SESSION, embedded=True))
    assert command["new_key"] == embedded.NEXT_KEY


def test_the_new_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "new"
    file.touch(0o600)
    arguments = _parser().parse_args(["key", "add", "--from", "./repo", "--new-password-file", str(file)])
    with pytest.raises(UsageError, match="password is empty"):
        passwords.find_next(arguments)
    file.write_text("second\n")
    assert passwords.find_next(arguments) == "second"
    monkeypatch.setenv(passwords.VARIABLE, "first")
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    with pytest.raises(UsageError, match="no password"):
        passwords.find_next(_parser().parse_args(["key", "add", "--from", "./repo"]))


def test_what_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    result = Result(keys=Keys(keys=ROWS, count=3))
    record = JobRecord(
        id="j", kind="key", submitter="me", state=State.SUCCEEDED, command={"action": "list"}, result=result
    )
    assert follow.tell(record, as_json=False) == 0
    head, first, second, rest = capsys.readouterr().out.splitlines()
    assert head.split() == ["ID", "USER", "HOST", "CREATED"]
    assert first.startswith("*abababab  joe   moon  2026-01-0")
    assert (second.split(), rest) == (["cdcdcdcd", "some", "day"], "and 1 more")
    assert follow.tell(record, as_json=True) == 0
    shown = msgspec.json.decode(capsys.readouterr().out)
    assert shown == keyed.as_restic(Keys(keys=ROWS, count=3))
    assert set(shown[0]) == {"current", "id", "userName", "hostName", "created"}


def test_what_was_done() -> None:
    done = Keys(added="ab" * 32, removed="cd" * 32, keys=ROWS[:1], count=1)
    assert follow.summary("key", Result(keys=done)) == (
        "added the key abababab and removed the key cdcdcdcd; keys now: 1"
    )
