"""The audit log grows and does nothing else; whatever is done to it from outside is found."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import pytest
from tinydb import Query, where

from snappy.errors import Corrupt, InvalidCommand, NoSpace, Unavailable, UsageError
from snappy.jobs import segments
from snappy.jobs.auditlog import AuditDB, AuditLog

SMALL = 400


def filled(folder: Path, entries: int = 20, *, segment_bytes: int = SMALL) -> AuditLog:
    log = AuditLog(folder, segment_bytes=segment_bytes)
    for number in range(1, entries + 1):
        log.append([{"n": number, "name": f"entry-{number}"}])
    return log


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("audit-*.jsonl"))


def opened(folder: Path) -> None:
    """Raises Corrupt if the log does not hold together, whether it can be opened or not."""
    log = AuditLog(folder, writable=False)
    if fault := log.verify().fault:
        raise Corrupt(fault)


def rewrite(path: Path, old: bytes, new: bytes) -> None:
    path.chmod(0o600)
    text = path.read_bytes()
    assert old in text
    path.write_bytes(text.replace(old, new, 1))


# ---- TinyDB ------------------------------------------------------------------------------------------------------


def test_queries_work_as_in_any_tinydb(tmp_path: Path) -> None:
    db = AuditDB(tmp_path, segment_bytes=SMALL)
    assert db.insert({"who": "alice", "n": 1}) == 1
    assert db.insert_multiple([{"who": "bob", "n": n} for n in range(2, 30)]) == list(range(2, 30))
    assert len(db) == 29
    assert [entry["n"] for entry in db] == list(range(1, 30))
    assert db.get(where("who") == "alice") == {"who": "alice", "n": 1}
    assert db.get(doc_id=17) == {"who": "bob", "n": 17}
    assert db.get(doc_id=99) is None
    assert [entry.doc_id for entry in db.search((Query().who == "bob") & (Query().n > 27))] == [28, 29]
    assert db.count(where("who") == "bob") == 28
    assert db.contains(doc_id=29)
    assert db.tables() == {"audit"}


def test_a_query_sees_what_came_after_it_was_first_asked(tmp_path: Path) -> None:
    db = AuditDB(tmp_path)
    assert db.search(where("n") == 1) == []
    db.insert({"n": 1})
    assert len(db.search(where("n") == 1)) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda db: db.update({"n": 2}),
        lambda db: db.upsert({"n": 2}, where("n") == 1),
        lambda db: db.remove(where("n") == 1),
        lambda db: db.remove(doc_ids=[1]),
        lambda db: db.truncate(),
        lambda db: db.drop_tables(),
        lambda db: db.drop_table("audit"),
    ],
)
def test_nothing_is_changed_or_removed(tmp_path: Path, change: object) -> None:
    db = AuditDB(tmp_path)
    db.insert({"n": 1})
    with pytest.raises(PermissionError):
        change(db)  # type: ignore[operator]
    assert db.all() == [{"n": 1}]


# ---- growing -----------------------------------------------------------------------------------------------------


def test_a_log_goes_on_where_it_was_left(tmp_path: Path) -> None:
    first = filled(tmp_path, 7)
    head = first.head
    first.close()
    again = AuditLog(tmp_path, segment_bytes=SMALL)
    assert (len(again), again.head) == (7, head)
    assert again.append([{"n": 8}, {"n": 9}]) == [8, 9]
    assert again.verify().fault == ""


def test_full_segments_are_sealed(tmp_path: Path) -> None:
    filled(tmp_path)
    found = files(tmp_path)
    assert len(found) > 3
    assert {path.stat().st_mode & 0o777 for path in found[:-1]} == {0o444}
    assert found[-1].stat().st_mode & 0o777 == 0o600


def test_newest_come_first_across_segments(tmp_path: Path) -> None:
    log = filled(tmp_path)
    assert [entry["n"] for entry in log.newest(5)] == [20, 19, 18, 17, 16]
    assert [entry.doc_id for entry in log.newest(9, containing="entry-1")] == [19, 18, 17, 16, 15, 14, 13, 12, 11]
    assert [entry["n"] for entry in log.newest(9, lambda entry: entry["n"] < 3)] == [2, 1]


def test_one_writes_and_others_read(tmp_path: Path) -> None:
    writer = filled(tmp_path, 3)
    with pytest.raises(UsageError, match="another process"):
        AuditLog(tmp_path)
    reader = AuditLog(tmp_path, writable=False)
    assert len(reader) == 3
    writer.append([{"n": 4}])
    assert [entry["n"] for entry in reader.newest(1)] == [4]


def test_the_lock_ends_with_its_owner(tmp_path: Path) -> None:
    filled(tmp_path, 3).close()
    assert len(AuditLog(tmp_path)) == 3


def test_what_is_no_json_or_too_large_is_refused_and_nothing_is_stored(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    for bad in ({"x": object()}, {"x": "a" * (segments.ENTRY_BYTES + 1)}):
        with pytest.raises(InvalidCommand):
            log.append([{"n": 1}, bad])
    assert len(log) == 0
    assert log.append([{"n": 1}]) == [1]


def test_an_append_is_on_the_disk_before_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AuditLog(tmp_path)
    synced: list[bytes] = []
    monkeypatch.setattr(segments.os, "fdatasync", lambda _: synced.append(files(tmp_path)[-1].read_bytes()))
    log.append([{"n": 1}, {"n": 2}])
    assert len(synced) == 1
    assert synced[0].count(b"\n") == 3


@pytest.mark.parametrize(("number", "kind"), [(28, NoSpace), (5, Unavailable)])
def test_a_failed_write_leaves_no_half_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    log = filled(tmp_path, 2)
    write, failing = os.write, True

    def short(file: int, text: bytes) -> int:
        if failing and len(text) <= 20:
            raise OSError(number, "no")
        return write(file, text[:20] if failing else text)

    monkeypatch.setattr(segments.os, "write", short)
    with pytest.raises(kind):
        log.append([{"n": 3}])
    failing = False
    assert log.append([{"n": 3}]) == [3]
    assert (log.verify().entries, log.verify().fault) == (3, "")


# ---- what a crash leaves -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_a_torn_last_write_is_repaired(tmp_path: Path, cut: int) -> None:
    log = filled(tmp_path, 5, segment_bytes=1 << 20)
    log.close()
    path = files(tmp_path)[-1]
    os.truncate(path, path.stat().st_size - cut)
    again = AuditLog(tmp_path)
    assert [entry["n"] for entry in again.db] == [1, 2, 3, 4]
    assert again.append([{"n": 5}]) == [5]
    assert again.verify().fault == ""


@pytest.mark.parametrize("left", [b"", b'{"v":1,"segm'])
def test_a_segment_whose_creation_was_cut_is_made_again(tmp_path: Path, left: bytes) -> None:
    log = filled(tmp_path)
    log.close()
    found = files(tmp_path)
    (tmp_path / f"audit-{len(found) + 1:06}.jsonl").write_bytes(left)
    again = AuditLog(tmp_path, segment_bytes=1)
    assert len(again) == 20
    assert again.append([{"n": 21}]) == [21]
    assert again.verify().fault == ""


def test_every_cut_of_a_log_opens_with_whole_entries(tmp_path: Path) -> None:
    log = filled(tmp_path / "whole", 2, segment_bytes=1 << 20)
    log.close()
    text = files(tmp_path / "whole")[0].read_bytes()
    for length in range(text.index(b"\n") + 1, len(text) + 1):
        folder = tmp_path / str(length)
        folder.mkdir()
        (folder / "audit-000001.jsonl").write_bytes(text[:length])
        cut = AuditLog(folder)
        assert len(cut) == text[:length].count(b"\n") - 1
        assert cut.verify().fault == ""
        cut.close()


# ---- what somebody does to it ------------------------------------------------------------------------------------


def test_a_changed_entry_is_found(tmp_path: Path) -> None:
    log = filled(tmp_path)
    rewrite(files(tmp_path)[1], b"entry-5", b"entry-X")
    assert log.verify().fault == "the audit log's chain is broken at entry 5"


def test_a_missing_entry_is_found(tmp_path: Path) -> None:
    log = filled(tmp_path, 5, segment_bytes=1 << 20)
    path = files(tmp_path)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3] + lines[4:]))
    assert "entry 3" in log.verify().fault


def test_reordered_entries_are_found(tmp_path: Path) -> None:
    log = filled(tmp_path, 5, segment_bytes=1 << 20)
    path = files(tmp_path)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[3], lines[2], *lines[4:]]))
    assert "entry 2" in log.verify().fault


def test_a_missing_segment_is_found(tmp_path: Path) -> None:
    filled(tmp_path).close()
    files(tmp_path)[1].unlink()
    assert "segment 2" in AuditLog(tmp_path, writable=False).verify().fault


def test_a_changed_header_is_found(tmp_path: Path) -> None:
    log = filled(tmp_path)
    path = files(tmp_path)[2]
    previous = re.search(rb'"previous":"(\w+)"', path.read_bytes())
    assert previous is not None
    rewrite(path, previous[1], b"0" * 64)
    assert "before entry" in log.verify().fault


def test_a_rewritten_log_does_not_open_for_writing(tmp_path: Path) -> None:
    filled(tmp_path, 3, segment_bytes=1 << 20).close()
    rewrite(files(tmp_path)[0], b"entry-2", b"entry-X")
    with pytest.raises(Corrupt, match="entry 2"):
        AuditLog(tmp_path)


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    filled(tmp_path / "whole", 3, segment_bytes=1 << 20).close()
    text = files(tmp_path / "whole")[0].read_bytes()
    folder = tmp_path / "flipped"
    folder.mkdir()
    path = folder / "audit-000001.jsonl"
    for place in range(len(text) - 1):
        path.write_bytes(text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :])
        with pytest.raises(Corrupt, match="audit log"):
            opened(folder)


def test_the_chain_is_what_the_module_says(tmp_path: Path) -> None:
    """Checked here with nothing of Snappy, from the description alone."""
    log = filled(tmp_path)
    head, number = "0" * 64, 0
    for path in files(tmp_path):
        for place, line in enumerate(path.read_text().splitlines()):
            if place == 0:
                assert json.loads(line)["previous"] == head
                head = hashlib.sha256(f"{line}\n".encode()).hexdigest()
                continue
            head = hashlib.sha256((head + line[: line.rindex(',"h":"')]).encode()).hexdigest()
            number += 1
            assert json.loads(line)["h"] == head
            assert json.loads(line)["i"] == number
    assert (log.verify().head, log.verify().entries) == (head, number) == (log.head, 20)
