"""The generator of permissions, and that the file in deploy/ is what it makes."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest

from snappy.bus import roles
from snappy.bus.roles import Role, User
from snappy.bus.subjects import Subjects
from snappy.errors import UsageError
from tests.support.roles import DEPLOYED

SUBJECTS = Subjects()
EVERYBODY: list[Role] = list(get_args(Role))


def test_the_deployed_file_is_fresh() -> None:
    made = roles.deployment(roles.example_users(roles.EXAMPLE), SUBJECTS)
    assert DEPLOYED.read_text() == made, "run: python -m snappy.bus.roles > deploy/nats.conf"


def test_the_command_prints_it() -> None:
    done = subprocess.run([sys.executable, "-m", "snappy.bus.roles"], capture_output=True, text=True, check=True)
    assert done.stdout == DEPLOYED.read_text()


def test_the_command_takes_names(capsys: pytest.CaptureFixture[str]) -> None:
    roles.main(["--prefix", "edge", "--source", "berlin-1", "--source", "oslo", "--target", "cellar"])
    printed = capsys.readouterr().out
    for word in ("EDGE_CORE", "edge.report.berlin-1.*", "edge.report.oslo.*", "edge.fs.cellar.> cellar"):
        assert word in printed
    assert "$berlin_1_password" in printed
    assert "$alice_password" not in printed


@pytest.mark.parametrize("role", EVERYBODY)
def test_everybody_reads_one_inbox_and_nobody_all_of_anything(role: Role) -> None:
    user = User("somebody", role)
    heard = roles.subscribes(user, SUBJECTS)
    assert [subject for subject in heard if subject.startswith("_INBOX")] == ["_INBOX.somebody.>"]
    assert not {">", "*", "snappy.>", "$JS.>", "$KV.>"} & set(heard + roles.publishes(user, SUBJECTS))
    assert "_R_.>" not in heard


@pytest.mark.parametrize("role", [role for role in EVERYBODY if role != "core"])
def test_only_the_core_has_the_api_of_jetstream(role: Role) -> None:
    said = roles.publishes(User("somebody", role), SUBJECTS)
    api = [subject for subject in said if subject.startswith("$JS.API") and ".CONSUMER.MSG.NEXT." not in subject]
    assert api == []
    assert not any(subject.startswith("$KV") for subject in said)


def test_who_asks_from_outside_has_an_account_alone() -> None:
    users = [User(role, role) for role in EVERYBODY]
    section = roles.accounts(users, SUBJECTS)
    members = {name: [user["user"] for user in account["users"]] for name, account in section.items()}
    assert members == {
        "SNAPPY_CORE": ["core", "audit"],
        "SNAPPY_SERVICES": ["source", "target"],
        "SNAPPY_SUBMITTER_SUBMITTER": ["submitter"],
        "SNAPPY_OBSERVER_OBSERVER": ["observer"],
    }
    assert [name for name, account in section.items() if "jetstream" in account] == ["SNAPPY_CORE"]


def test_an_nkey_takes_the_place_of_a_password() -> None:
    section = roles.accounts([User("alice", "submitter", nkey="UABC")], SUBJECTS)
    [user] = section["SNAPPY_SUBMITTER_ALICE"]["users"]
    assert user["nkey"] == "UABC"
    assert not {"user", "password"} & set(user)


def test_two_cannot_share_a_name() -> None:
    with pytest.raises(UsageError, match="vault"):
        roles.accounts([User("vault", "source"), User("vault", "target")], SUBJECTS)


@pytest.mark.parametrize("name", ["a.b", "*", ">", "", "Alice", 'a" }'])
def test_a_name_is_a_token(name: str) -> None:
    with pytest.raises(UsageError):
        roles.accounts([User(name, "submitter", "p")], SUBJECTS)


def test_a_password_cannot_end_its_string() -> None:
    text = roles.render(roles.accounts([User("alice", "submitter", 'a" }\n"')], SUBJECTS))
    assert r'password: "a\" }\n\""' in text
