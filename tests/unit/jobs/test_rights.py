"""What a grant lets a worker do, and who may have anything deleted."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import to_builtins
from msgspec.structs import replace

from snappy.config import Core, Deletion
from snappy.errors import Denied
from snappy.jobs.kinds import COMMANDS
from snappy.jobs.messages import JobRecord
from snappy.jobs.rights import RIGHTS, check_deletion, delay, deletes_of, rights_of
from snappy.jobs.states import State
from snappy.jobs.upkeep import CheckCommand, ForgetCommand, KeyCommand, RepairCommand

VAULT = Deletion(may_delete=["keeper"], sources=["upkeep"], delete_after=72.0)
SETTINGS = Core(may_delete=["root"], targets={"vault": VAULT, "other": Deletion(may_delete=["alice"])})


def record(kind: str = "forget", *, submitter: str = "keeper", source: str = "upkeep", **command: Any) -> JobRecord:
    command = {"target": "vault", **command}
    return JobRecord(
        id="j", kind=kind, submitter=submitter, state=State.RUNNING, source=source, command=command, delay=72 * 3600.0
    )


def forget(*, target: str = "vault", source: str = "upkeep", **more: Any) -> ForgetCommand:
    return ForgetCommand(source=source, target=target, keep_last=1, **more)


def test_every_kind_has_rights() -> None:
    assert set(COMMANDS) <= set(RIGHTS)
    assert all("d" not in rights and "W" not in rights for rights in RIGHTS.values())


@pytest.mark.parametrize("submitter", ["keeper", "root"])
def test_who_is_named_may(submitter: str) -> None:
    check_deletion("forget", forget(), submitter, SETTINGS)
    assert rights_of(record(submitter=submitter), SETTINGS) == "rlwd"


@pytest.mark.parametrize(
    ("submitter", "target", "source"),
    [
        ("alice", "vault", "upkeep"),
        ("keeper", "other", "upkeep"),
        ("keeper", "third", "upkeep"),
        ("keeper", "vault", "site1"),
        ("root", "vault", "site1"),
        ("", "vault", "upkeep"),
        ("*", "vault", "upkeep"),
    ],
)
def test_nobody_else_may(submitter: str, target: str, source: str) -> None:
    with pytest.raises(Denied):
        check_deletion("forget", forget(target=target, source=source), submitter, SETTINGS)
    assert rights_of(record(submitter=submitter, source=source, target=target), SETTINGS) == "rlw"


def test_whoever_looks_deletes_nothing_and_does_not_wait() -> None:
    check_deletion("forget", forget(dry_run=True), "alice", SETTINGS)
    check_deletion("check", CheckCommand(source="site1", target="vault"), "alice", SETTINGS)
    assert rights_of(record(dry_run=True), SETTINGS) == "rlw"
    assert delay("forget", forget(dry_run=True), "keeper", SETTINGS) == 0
    assert delay("check", CheckCommand(source="site1", target="vault"), "keeper", SETTINGS) == 0


def test_the_hours_of_a_target() -> None:
    assert delay("forget", forget(), "keeper", SETTINGS) == 72 * 3600
    assert {delay("forget", forget(target=target), "root", SETTINGS) for target in ("other", "third")} == {0}


def test_who_was_announced_for_fewer_hours_deletes_nothing() -> None:
    longer = replace(SETTINGS, targets={"vault": replace(VAULT, delete_after=72.5)})
    assert rights_of(record(), SETTINGS) == "rlwd"
    assert rights_of(record(), longer) == rights_of(replace(record(), delay=0.0), SETTINGS) == "rlw"


def test_a_repair_without_the_right_waits_for_nothing_and_deletes_nothing() -> None:
    command = RepairCommand(source="upkeep", target="vault", what="index")
    check_deletion("repair", command, "alice", SETTINGS)
    assert (delay("repair", command, "alice", SETTINGS), delay("repair", command, "root", SETTINGS)) == (0, 72 * 3600)
    asked = replace(record("repair", what="index"), delay=0.0)
    assert rights_of(asked, SETTINGS) == rights_of(replace(asked, submitter="alice"), SETTINGS) == "rlw"


KEY = {"id": "0123abcd"}


@pytest.mark.parametrize(
    ("action", "more", "deletes"),
    [
        ("list", {}, ()),
        ("add", {"new_key": "next"}, ()),
        ("remove", KEY, ("keys/0123abcd",)),
        ("change", {"new_key": "next"}, ("keys/",)),
    ],
)
def test_keys_are_removed_by_who_may_and_no_more_than_asked(
    action: Any, more: dict[str, str], deletes: tuple[str, ...]
) -> None:
    command = KeyCommand(source="upkeep", target="vault", action=action, **more)
    asked = replace(record("key"), command=to_builtins(command))
    assert rights_of(asked, SETTINGS) == ("rlwd" if deletes else "rlw")
    assert rights_of(replace(asked, submitter="alice"), SETTINGS) == "rlw"
    assert rights_of(replace(asked, delay=0.0), SETTINGS) == "rlw"
    assert deletes_of(asked) == deletes
    assert delay("key", command, "keeper", SETTINGS) == (72 * 3600 if deletes else 0)
    if deletes:
        with pytest.raises(Denied):
            check_deletion("key", command, "alice", SETTINGS)
    else:
        check_deletion("key", command, "alice", SETTINGS)


@pytest.mark.parametrize("kind", ["init", "backup", "restore", "check"])
def test_other_kinds_never_delete(kind: str) -> None:
    assert "d" not in rights_of(record(kind, prune=True), SETTINGS)
    assert deletes_of(record(kind)) == ()


def test_what_may_be_deleted() -> None:
    for kind, what in (("forget", ""), ("prune", ""), *(("repair", what) for what in ("index", "packs", "snapshots"))):
        everything = deletes_of(record(kind, prune=True, what=what))
        assert not any(path.startswith(everything) for path in ("keys/x", "config", "locks/x"))
    assert deletes_of(record("forget")) == ("snapshots/",)
    assert set(deletes_of(record("forget", prune=True))) == {"snapshots/", "index/", "data/"}
    assert deletes_of(record("repair", what="snapshots")) == ("snapshots/",)
    assert deletes_of(record("repair", what="index")) == ("index/",)
    assert set(deletes_of(record("prune"))) == {"index/", "data/"}
