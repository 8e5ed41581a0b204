from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from snappy.errors import Damaged, RepositoryLocked, SnapshotNotFound
from snappy.repository.repo import Repository
from snappy.repository.snapshots import Snapshot, Summary
from snappy.repository.store import FileType
from tests.support.engine import flip, new_repository

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def snapshot(hours: int = 0, **fields: Any) -> Snapshot:
    given: dict[str, Any] = {"time": NOON + timedelta(hours=hours), "tree": "ab" * 32, "paths": ["/a"]}
    return Snapshot(**(given | fields))


@pytest.fixture
def repository() -> Repository:
    return new_repository()


def test_what_was_saved_is_found(repository: Repository) -> None:
    summary = Summary(backup_start=NOON, backup_end=NOON, files_new=3, data_added=10**12)
    saved = snapshot(tags=["t"], parent="cd" * 32, hostname="h", uid=5, excludes=["*.o"], summary=summary)
    name = repository.save_snapshot(saved)
    assert saved.id == name
    assert repository.find_snapshot(name) == saved
    assert repository.snapshots() == [saved]
    assert saved.tree_id == b"\xab" * 32


def test_the_file_is_restics(repository: Repository) -> None:
    name = repository.save_snapshot(snapshot(hostname="h", id="never written"))
    document = json.loads(repository.documents.load(FileType.SNAPSHOT, name))
    assert document == {"time": "2026-01-02T12:00:00Z", "tree": "ab" * 32, "paths": ["/a"], "hostname": "h"}


def test_what_restic_writes_is_read(repository: Repository) -> None:
    document = (
        b'{"time":"2015-01-02T18:10:50.895208559+01:00","tree":"' + b"2d" * 32 + b'","paths":["/tmp/testdata"],'
        b'"hostname":"kasimir","username":"fd0","uid":1000,"gid":100,"tags":["NL"],"original":"' + b"25" * 32 + b'",'
        b'"program_version":"restic 0.19.1","later":{"x":[1]},'
        b'"summary":{"backup_start":"2015-01-02T18:10:50.1+01:00","backup_end":"2015-01-02T18:10:51+01:00",'
        b'"files_new":1,"later":2}}'
    )
    found = repository.find_snapshot(repository.documents.save(FileType.SNAPSHOT, document))
    assert found.time == datetime(2015, 1, 2, 17, 10, 50, 895209, tzinfo=UTC)
    assert (found.username, found.tags, found.program_version) == ("fd0", ["NL"], "restic 0.19.1")
    assert found.summary is not None
    assert found.summary.files_new == 1


def test_snapshots_are_listed_by_time(repository: Repository) -> None:
    for hours in (5, -3, 1):
        repository.save_snapshot(snapshot(hours))
    times = [found.time for found in repository.snapshots()]
    assert times == sorted(times)


def test_latest_with_filters(repository: Repository) -> None:
    old = snapshot(0, hostname="one", tags=["a", "b"], paths=["/a", "/b"])
    middle = snapshot(1, hostname="two", tags=["a"])
    new = snapshot(2, hostname="three")
    for one in (new, old, middle):
        repository.save_snapshot(one)
    find = repository.find_snapshot
    assert find("latest") == new
    assert find("latest", hosts=["one", "two"]) == middle
    assert find("latest", tags=["a"]) == middle
    assert find("latest", tags=["a", "b"]) == old
    assert find("latest", paths=["/b"]) == old
    assert find("latest", before=NOON + timedelta(hours=1.5)) == middle
    with pytest.raises(SnapshotNotFound):
        find("latest", hosts=["four"])


def test_first_letters(repository: Repository) -> None:
    names = {repository.save_snapshot(snapshot(hours)) for hours in range(17)}
    for name in names:
        assert repository.find_snapshot(name[:20]).id == name
    # Seventeen ids cannot all differ in their first of sixteen letters.
    shared = next(letter for letter in "0123456789abcdef" if sum(name[0] == letter for name in names) > 1)
    with pytest.raises(SnapshotNotFound, match="ambiguous"):
        repository.find_snapshot(shared)


@pytest.mark.parametrize("spec", ["", "0" * 64, "f" * 63, "xyz", "../config", "LATEST", "0" * 65])
def test_what_is_not_there(repository: Repository, spec: str) -> None:
    with pytest.raises(SnapshotNotFound):
        repository.find_snapshot(spec)


def test_latest_of_none(repository: Repository) -> None:
    with pytest.raises(SnapshotNotFound):
        repository.find_snapshot("latest")


def test_a_damaged_snapshot_is_skipped_in_a_list_but_never_by_latest(repository: Repository) -> None:
    good = snapshot()
    repository.save_snapshot(good)
    bad = repository.save_snapshot(snapshot(1))
    flip(repository.store, f"snapshots/{bad}", 30)
    assert repository.snapshots() == [good]
    for spec in ("latest", bad):
        with pytest.raises(Damaged, match=bad[:8]):
            repository.find_snapshot(spec)


@pytest.mark.parametrize("document", [b"{}", b"[]", b'{"time":"2015-01-02T18:10:50","tree":"","paths":[]}'])
def test_what_is_no_snapshot(repository: Repository, document: bytes) -> None:
    name = repository.documents.save(FileType.SNAPSHOT, document)
    with pytest.raises(Damaged):
        repository.find_snapshot(name)


def test_no_snapshot_is_written_once_the_lock_is_lost(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> None:
        raise RepositoryLocked

    monkeypatch.setattr(repository.store, "fence", lost)
    with pytest.raises(RepositoryLocked):
        repository.save_snapshot(snapshot())
    assert repository.snapshots() == []
