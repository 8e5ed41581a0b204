"""A test for each rule of what a submitter may ask of a source service."""

from __future__ import annotations

from pathlib import Path

import pytest

from snappy.config import Allow
from snappy.errors import Denied
from snappy.sources.allow import EVERYTHING, Ask, check, parts, rules_for

RULES = Allow(
    kinds=["backup", "restore"],
    plugins=["files"],
    targets=["vault"],
    read=["/srv/data", "s3://bucket/photos"],
    restore_to=["/srv/back"],
)
BACKUP = {"kind": "backup", "target": "vault", "plugin": "files"}
RESTORE = {"kind": "restore", "target": "vault", "plugin": "files"}


def denied(ask: Ask, rules: Allow = RULES) -> str:
    with pytest.raises(Denied) as caught:
        check(ask, rules, "alice")
    return caught.value.message


def test_what_is_listed_is_allowed() -> None:
    check(Ask(**BACKUP, reads=["/srv/data", "/srv/data/a/b"]), RULES, "alice")
    check(Ask(**RESTORE, writes=["/srv/back/new"]), RULES, "alice")


def test_a_kind_that_is_not_listed() -> None:
    assert "'init'" in denied(Ask(kind="init", target="vault"))


def test_a_plugin_that_is_not_listed() -> None:
    assert "'command'" in denied(Ask(kind="backup", target="vault", plugin="command"))


def test_a_target_that_is_not_listed() -> None:
    assert "'other'" in denied(Ask(kind="backup", target="other", plugin="files"))


@pytest.mark.parametrize(
    "place",
    [
        "/etc",
        "/srv",
        "/",
        "/srv/database",
        "/srv/data/../../etc",
        "/srv/data/../datb",
        "srv/data",
        "",
        "file:///etc",
        "s3://bucket",
        "s3://bucket/photos-of-others",
        "s3://other/photos",
        "s3://bucket/photos/../secret",
        "s3://bucket/photos/%2e%2e/secret",
        "s3://bucket/photos::file:///etc",
        "gcs://bucket/photos",
        "simplecache::s3://bucket/photos",
        "/srv/data\0/etc",
    ],
)
def test_a_place_outside_may_not_be_read(place: str) -> None:
    assert repr(place) in denied(Ask(**BACKUP, reads=["/srv/data", place]))


@pytest.mark.parametrize("place", ["/srv/data/", "/srv/./data//x", "file:///srv/data/x", "s3://bucket/photos/2026"])
def test_a_place_inside_may_be_read_however_it_is_written(place: str) -> None:
    check(Ask(**BACKUP, reads=[place]), RULES, "alice")


def test_a_link_that_leads_out_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "mine" / "way").symlink_to(tmp_path / "secret")
    rules = Allow(kinds=["*"], plugins=["*"], targets=["*"], read=[str(tmp_path / "mine")])
    check(Ask(**BACKUP, reads=[str(tmp_path / "mine" / "file")]), rules, "alice")
    assert "secret" in denied(Ask(**BACKUP, reads=[str(tmp_path / "mine" / "way" / "secret")]), rules)
    assert "way" in denied(Ask(**BACKUP, reads=[str(tmp_path / "mine" / "way")]), rules)


def test_an_allowed_place_may_itself_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "name").symlink_to(tmp_path / "real")
    rules = Allow(kinds=["*"], plugins=["*"], targets=["*"], read=[str(tmp_path / "name")])
    check(Ask(**BACKUP, reads=[str(tmp_path / "name" / "x"), str(tmp_path / "real" / "x")]), rules, "alice")


def test_a_place_outside_may_not_be_restored_to(tmp_path: Path) -> None:
    assert "/etc" in denied(Ask(**RESTORE, writes=["/etc"]))
    assert "/srv/data" in denied(Ask(**RESTORE, writes=["/srv/data"]))


def test_a_new_place_counts_as_where_its_parent_leads(tmp_path: Path) -> None:
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "out").symlink_to("/")
    (tmp_path / "back" / "dangling").symlink_to(tmp_path / "not-there")
    rules = Allow(kinds=["*"], plugins=["*"], targets=["*"], restore_to=[str(tmp_path / "back")])
    check(Ask(**RESTORE, writes=[str(tmp_path / "back" / "new" / "deep")]), rules, "alice")
    denied(Ask(**RESTORE, writes=[str(tmp_path / "back" / "out" / "new")]), rules)
    denied(Ask(**RESTORE, writes=[str(tmp_path / "back" / "dangling" / "new")]), rules)
    denied(Ask(**RESTORE, writes=[str(tmp_path / "back" / "new" / ".." / ".." / "x")]), rules)


def test_reading_rights_are_no_writing_rights() -> None:
    rules = Allow(kinds=["*"], plugins=["*"], targets=["*"], read=["*"])
    assert "restore to" in denied(Ask(**RESTORE, writes=["/srv/data"]), rules)


def test_an_unknown_submitter_may_do_nothing() -> None:
    assert "'backup'" in denied(Ask(**BACKUP), rules_for("mallory", {"alice": RULES}))


def test_the_star_is_for_those_without_an_entry() -> None:
    rules = {"*": EVERYTHING, "alice": RULES}
    assert rules_for("alice", rules) == RULES
    assert rules_for("bob", rules) == EVERYTHING


def test_scratch_is_open_to_restores_and_to_nothing_else(tmp_path: Path) -> None:
    rules = rules_for("alice", {"alice": Allow(kinds=["*"], plugins=["*"], targets=["*"])}, str(tmp_path))
    check(Ask(**RESTORE, writes=[str(tmp_path / "here")]), rules, "alice")
    denied(Ask(**BACKUP, reads=[str(tmp_path)]), rules)
    denied(Ask(**RESTORE, writes=["/srv"]), rules)


def test_everything_is_everything() -> None:
    check(Ask(kind="any", target="any", plugin="any", reads=["/etc", "x::y://z"], writes=["/"]), EVERYTHING, "anyone")


def test_parts_follow_links_and_keep_case(tmp_path: Path) -> None:
    assert parts("S3://Bucket//A/./b/") == ("s3:", "Bucket", "A", "b")
    assert parts(f"{tmp_path}/a/../b") == (*parts(str(tmp_path)), "b")


def test_a_link_that_leads_in_may_be_turned_round(tmp_path: Path) -> None:
    for name in ("back", "mine"):
        (tmp_path / name).mkdir()
    (tmp_path / "mine" / "way").symlink_to(tmp_path / "back")
    rules = Allow(kinds=["*"], plugins=["*"], targets=["*"], restore_to=[str(tmp_path / "back")])
    denied(Ask(**RESTORE, writes=[str(tmp_path / "mine" / "way")]), rules)
