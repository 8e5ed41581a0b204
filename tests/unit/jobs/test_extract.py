"""An export proves by itself that its entries stood in the log, and a changed one is found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from snappy.errors import Corrupt
from snappy.jobs import extract
from snappy.jobs.audit import matcher
from snappy.jobs.audit_words import AuditFilter
from snappy.jobs.auditlog import AuditLog

SMALL = 700
ENTRIES = 40


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    made = AuditLog(tmp_path / "log", segment_bytes=SMALL)
    for number in range(1, ENTRIES + 1):
        event = {
            "submitter": ["alice", "bob"][number % 2],
            "type": f"io.snappy.{['backup', 'check'][number % 2]}.accepted",
        }
        made.append([{"n": number, "time": 100.0 + number, "event": {**event, "subject": f"job-{number // 3}"}}])
    return made


def exported(log: AuditLog, wanted: AuditFilter | None = None, *, room: int = 1 << 20) -> list[str]:
    lines: list[str] = []
    following = 1
    while following:
        part = log.export(following, matcher(wanted or AuditFilter()), room=room)
        lines += part.lines
        following = part.following
    return lines


def checked(tmp_path: Path, lines: list[str]) -> extract.Checked:
    path = tmp_path / "export"
    path.write_text("".join(f"{line}\n" for line in lines))
    return extract.check(path)


def numbers(lines: list[str]) -> list[int]:
    return [line["i"] for line in map(json.loads, lines) if "i" in line]


@pytest.mark.parametrize("room", [1, 500, 3000, 1 << 20])
def test_all_of_it_in_parts_of_any_size(log: AuditLog, tmp_path: Path, room: int) -> None:
    lines = exported(log, room=room)
    assert numbers(lines) == list(range(1, ENTRIES + 1))
    assert len(lines) > ENTRIES + 5  # the headers of the segments
    assert checked(tmp_path, lines) == (ENTRIES, ENTRIES, log.head, True)


def test_a_part_fits_into_its_room(log: AuditLog) -> None:
    part = log.export(1, lambda _: True, room=2000)
    assert 500 < len(json.dumps(part.lines)) <= 2000


def test_a_filter_that_matches_nothing_answers_in_parts(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "LOOKED_AT", 10)
    part = log.export(1, lambda _: False, room=1 << 20)
    assert part.following == 11
    assert numbers(exported(log, AuditFilter(submitter="nobody"))) == []
    assert numbers(exported(log, AuditFilter(job="job-13"))) == [39, 40]


FILTERS: list[tuple[AuditFilter, Callable[[int], bool]]] = [
    (AuditFilter(submitter="bob"), lambda n: n % 2 == 1),
    (AuditFilter(kind="backup"), lambda n: n % 2 == 0),
    (AuditFilter(since=120.0), lambda n: n >= 20),
    (AuditFilter(since=110.0, until=115.0), lambda n: 10 <= n < 15),
    (AuditFilter(job="job-4", submitter="alice"), lambda n: n // 3 == 4 and n % 2 == 0),
]


@pytest.mark.parametrize(("wanted", "is_in"), FILTERS)
def test_a_filter_leaves_out_and_the_rest_proves_itself(
    log: AuditLog, tmp_path: Path, wanted: AuditFilter, is_in: Callable[[int], bool]
) -> None:
    lines = exported(log, wanted)
    expected = [number for number in range(1, ENTRIES + 1) if is_in(number)]
    assert numbers(lines) == expected
    found = checked(tmp_path, lines)
    assert (found.entries, found.whole) == (len(expected), False)


def test_a_dozen_lines_of_anybodys_check_it(log: AuditLog) -> None:
    """As the module's first sentences say it."""
    link = "0" * 64
    for line in exported(log):
        found: Mapping[str, Any] = json.loads(line)
        if "segment" in found:
            assert found["previous"] == link
            link = hashlib.sha256(line.encode() + b"\n").hexdigest()
        else:
            assert found["previous"] == link
            start = "{" + line.split(",", 1)[1].rpartition(',"h":')[0]
            link = hashlib.sha256(link.encode() + start.encode()).hexdigest()
            assert found["h"] == link


def test_whatever_is_changed_is_found(log: AuditLog, tmp_path: Path) -> None:
    lines = exported(log)
    for place, line in enumerate(lines):
        without = lines[:place] + lines[place + 1 :]
        twisted = lines[:place] + lines[place + 1 : place + 2] + [line] + lines[place + 2 :]
        changed = [*lines[:place], line.replace('"n":', '"m":').replace('"first":', '"first":1'), *lines[place + 1 :]]
        for harmed in (twisted, changed):
            if harmed != lines:
                with pytest.raises(Corrupt, match="does not fit"):
                    checked(tmp_path, harmed)
        if 0 < place < len(lines) - 1:
            assert not _counts_as_whole(tmp_path, without)


def _counts_as_whole(tmp_path: Path, lines: list[str]) -> bool:
    try:
        return checked(tmp_path, lines).whole
    except Corrupt:
        return False


@pytest.mark.parametrize(
    "junk", ["", "{}", "[]", "no json", '{"previous":"x"}', '{"previous":"' + "0" * 64 + '","i":1}']
)
def test_junk_is_corrupt(tmp_path: Path, junk: str) -> None:
    if junk:
        with pytest.raises(Corrupt):
            checked(tmp_path, [junk])
    else:
        assert checked(tmp_path, [junk]).entries == 0
