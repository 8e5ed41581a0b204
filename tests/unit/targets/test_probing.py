from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from snappy.errors import AccessDenied
from snappy.targets.opening import open_target
from snappy.targets.policy import LETTERS, PolicyFileSystem
from snappy.targets.probing import Probe, probe
from tests.support.engine import PrivateMemory

SIZE = 64 << 10


class NoRanges(PrivateMemory):
    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        return bytes(MemoryFileSystem.cat_file(self, path))


class Replacing(PrivateMemory):
    def draft(self, path: str, *, exclusive: bool) -> Any:
        from snappy.targets.drafts import RenamedDraft

        return RenamedDraft(self, path, False)


def cannot(found: Probe) -> set[str]:
    return {each.name for each in found.findings if not each.can}


def test_a_folder_can_do_it_all_and_nothing_is_left(tmp_path: Path) -> None:
    found = probe(open_target(str(tmp_path / "kept"), rights=LETTERS), SIZE)
    assert found.will_do
    assert cannot(found) == set()
    assert found.write_rate > 0
    assert found.skew_seconds is not None
    assert list((tmp_path / "kept").iterdir()) == []


def test_who_gives_the_whole_for_a_range_will_not_do() -> None:
    fs = NoRanges()
    found = probe(PolicyFileSystem(fs, "/kept", LETTERS), SIZE)
    assert not found.will_do
    assert "ranges" in cannot(found)
    assert fs.store == {}


def test_who_replaces_what_should_be_created_will_not_do() -> None:
    found = probe(PolicyFileSystem(Replacing(), "/kept", LETTERS), SIZE)
    assert not found.will_do
    assert "create only" in cannot(found)


@pytest.mark.parametrize("wanted", [True, False])
def test_a_bucket_without_the_object_lock_that_is_asked_for_will_not_do(wanted: bool) -> None:
    class Bucket(PrivateMemory):
        object_lock = object() if wanted else None

        def has_lock(self, path: str) -> bool:
            return False

    found = probe(PolicyFileSystem(Bucket(), "/kept", LETTERS), SIZE)
    assert cannot(found) == {"object lock"}
    assert found.will_do is not wanted


def test_an_error_is_told_in_words_with_its_hint() -> None:
    class Closed(PrivateMemory):
        def draft(self, path: str, *, exclusive: bool) -> Any:
            raise PermissionError("that is yours no more")

    (write, *_) = probe(PolicyFileSystem(Closed(), "/kept", LETTERS), SIZE).findings
    assert (write.can, write.code, write.hint) == (False, AccessDenied.code, AccessDenied.hint)
    assert "that is yours no more" in write.remark


def test_a_clock_that_is_off_is_said(tmp_path: Path) -> None:
    found = probe(open_target(str(tmp_path / "kept"), rights=LETTERS), SIZE, clock=lambda: 1_000_000.0)
    assert "clock" in cannot(found)
    assert found.will_do, "it is the target's own clock that grants are checked by"
