"""Names are built and parsed in one module; what a caller could smuggle into a token is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snappy.bus.subjects import ANYONE, Subjects, hint_of, token
from snappy.errors import UsageError

NAMES = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)


@given(st.text(max_size=80))
def test_a_token_never_holds_what_a_subject_gives_a_meaning(text: str) -> None:
    try:
        accepted = token(text)
    except UsageError:
        return
    assert accepted
    assert not set(accepted) & set(".*> \t\r\n$")


@pytest.mark.parametrize("bad", ["", "a.b", "*", ">", "A", "-a", "a b", "a\n", "x" * 64])
def test_refuses(bad: str) -> None:
    with pytest.raises(UsageError):
        token(bad)


@given(NAMES, NAMES, NAMES)
def test_what_is_built_is_parsed(prefix: str, one: str, other: str) -> None:
    subjects = Subjects(prefix)
    assert subjects.parse_command(subjects.command("backup", one)) == ("backup", one)
    assert subjects.parse_worker(subjects.hold("claim", one, other)) == ("claim", one, other)
    assert subjects.parse_worker(subjects.report(one, other)) == ("report", one, other)
    assert subjects.parse_call(subjects.api("job", "get", one)) == ("job", "get", one)
    assert subjects.parse_call(subjects.ask(other, "snapshots", "list", one)) == ("snapshots", "list", one)


def test_a_bare_command_comes_from_anyone() -> None:
    assert Subjects().parse_command("snappy.cmd.backup") == ("backup", ANYONE)


def test_two_prefixes_share_no_name() -> None:
    one, other = Subjects("one"), Subjects("two")
    names = [{v for k, v in vars(s).items() if isinstance(v, str)} | set(s.all_commands) for s in (one, other)]
    assert not names[0] & names[1]


@pytest.mark.parametrize(
    ("subject", "hint"),
    [
        (Subjects().fs("vault", "open", "site1"), "`snappy target run vault`"),
        (Subjects().data("vault", "r1", "site1", "t"), "`snappy target run vault`"),
        (Subjects().ask("site1", "snapshots", "list", "alice"), "`snappy source run site1`"),
        (Subjects().api("services", "list", "alice"), "`snappy core run`"),
        (Subjects().api("audit", "query", "alice"), "`snappy audit run`"),
        (Subjects().hold("claim", "site1", "r1"), "`snappy core run`"),
    ],
)
def test_where_nobody_answers_the_hint_says_what_to_start(subject: str, hint: str) -> None:
    assert hint in hint_of(subject)


@pytest.mark.parametrize("subject", ["nowhere", "snappy.event.backup.failed.j1", "$JS.API.INFO"])
def test_of_other_subjects_there_is_nothing_to_say(subject: str) -> None:
    assert hint_of(subject) == ""
