"""What can be said of a bucket without a server."""

from __future__ import annotations

from typing import Any

import pytest

from snappy.errors import UsageError
from snappy.targets.opening import open_storage
from snappy.targets.s3 import NAMED, PACK, RETAINED, BucketFileSystem

ID = "ab" * 32
LOCK = {"mode": "governance", "days": 8}


def bucket(**options: Any) -> BucketFileSystem:
    fs, _ = open_storage("s3://bucket/site", {"key": "k", "secret": "s", **options})
    assert isinstance(fs, BucketFileSystem)
    return fs


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("config", [RETAINED]),
        (f"keys/{ID}", [RETAINED, NAMED]),
        (f"snapshots/{ID}", [RETAINED, NAMED]),
        (f"index/{ID}", [RETAINED, NAMED]),
        (f"data/ab/{ID}", [RETAINED, NAMED, PACK]),
        (f"locks/{ID}", [NAMED]),
        ("snappy-probe-0123/small", []),
        ("keys/config.old", []),
    ],
)
def test_which_objects_are_retained_and_which_are_packs(name: str, kinds: list[Any]) -> None:
    for root in ("bucket", "bucket/locks/site"):
        assert [kind for kind in (RETAINED, NAMED, PACK) if kind.search(f"{root}/{name}")] == kinds


def test_only_packs_have_the_storage_class() -> None:
    fs = bucket(storage_class="COLD")
    assert fs.how_kept(f"bucket/site/data/ab/{ID}") == {"StorageClass": "COLD"}
    assert fs.how_kept(f"bucket/site/index/{ID}") == {}
    assert bucket().how_kept(f"bucket/site/data/ab/{ID}") == {}


def test_until_when_what_is_deleted_is_kept() -> None:
    fs = bucket(object_lock=LOCK, clock=lambda: 1000.0)
    assert fs.kept_until("bucket/site/config") == 1000.0 + 8 * 86_400
    assert fs.kept_until(f"bucket/site/locks/{ID}") == 0
    assert bucket().kept_until("bucket/site/config") == 0


def test_a_name_that_is_not_its_content_s_is_asked_for_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    fs, stored = bucket(), list[str]()
    monkeypatch.setattr(fs, "exists", lambda path: True)
    monkeypatch.setattr(fs, "pipe_file", lambda path, *_content, **_how: stored.append(path))
    with pytest.raises(FileExistsError):
        fs.draft("bucket/site/config", exclusive=True).commit()
    fs.draft("bucket/site/config", exclusive=False).commit()
    fs.draft(f"bucket/site/data/ab/{ID}", exclusive=True).commit()
    assert stored == ["bucket/site/config", f"bucket/site/data/ab/{ID}"]


@pytest.mark.parametrize(("days", "seconds"), [(30, 86_400), (1, 21_600)])
def test_how_often_chores_are_done(days: float, seconds: float) -> None:
    assert bucket(object_lock={"mode": "governance", "days": days}).chore_seconds == seconds


@pytest.mark.parametrize(
    "options",
    [
        {"storage_class": "GLACIER"},
        {"storage_class": "deep_archive"},
        {"object_lock": {"mode": "governance"}},
        {"object_lock": {"mode": "forever", "days": 1}},
        {"object_lock": {"mode": "compliance", "days": 0}},
        {"object_lock": "compliance"},
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        bucket(**options)
