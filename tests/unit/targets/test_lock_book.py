"""Who may remove a lock: who wrote it, and who was named it; whoever is on the other side of a policy."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from msgspec.structs import replace

from snappy.bus.grants import Grant
from snappy.errors import AccessDenied, NotFound
from snappy.targets.lock_book import LockBook
from snappy.targets.policy import APPEND_ONLY, PolicyFileSystem

CONTENT = b"a sealed lock"
NAME = hashlib.sha256(CONTENT).hexdigest()
LOCK = f"locks/{NAME}"


def grant(job: str = "job-1", attempt: int = 1, caller: str = "site", locks: tuple[str, ...] = ()) -> Grant:
    return Grant(job, attempt, caller, "vault", "rlw", 1000.0, locks)


def under(given: Grant | None) -> Callable[[str], Grant | None]:
    return lambda _right: given


@pytest.fixture
def files() -> PolicyFileSystem:
    return PolicyFileSystem(MemoryFileSystem(), f"/{secrets.token_hex(8)}", APPEND_ONLY)


@pytest.mark.parametrize("later", [grant(), grant(attempt=2), grant("job-2", locks=(NAME,))])
def test_its_job_removes_a_lock_and_so_does_who_was_named_it(files: PolicyFileSystem, later: Grant) -> None:
    files.asking(under(grant())).pipe_file(LOCK, CONTENT)
    files.asking(under(later)).rm_file(LOCK)
    assert not files.exists(LOCK)


@pytest.mark.parametrize("other", [grant("job-2"), grant(caller="other"), grant("job-2", locks=("0" * 64,))])
def test_nobody_else_does(files: PolicyFileSystem, other: Grant) -> None:
    files.asking(under(grant())).pipe_file(LOCK, CONTENT)
    with pytest.raises(AccessDenied):
        files.asking(under(other)).rm_file(LOCK)
    assert files.exists(LOCK)


def test_a_target_that_was_started_anew_removes_only_what_is_named(files: PolicyFileSystem) -> None:
    files.asking(under(grant())).pipe_file(LOCK, CONTENT)
    anew = PolicyFileSystem(files.fs, files.root, APPEND_ONLY)
    with pytest.raises(AccessDenied):
        anew.asking(under(grant())).rm_file(LOCK)
    anew.asking(under(grant(locks=(NAME,)))).rm_file(LOCK)
    assert not files.exists(LOCK)


def test_writing_a_lock_again_does_not_make_it_ones_own(files: PolicyFileSystem) -> None:
    files.asking(under(grant())).pipe_file(LOCK, CONTENT)
    thief = files.asking(under(grant("job-2")))
    with pytest.raises(AccessDenied):
        thief.pipe_file(LOCK, CONTENT)
    with thief.write(LOCK) as draft:
        draft.write(CONTENT)
    with pytest.raises(AccessDenied):
        thief.rm_file(LOCK)


def test_a_removed_lock_that_another_writes_again_is_the_others(files: PolicyFileSystem) -> None:
    first, second = files.asking(under(grant())), files.asking(under(grant("job-2")))
    first.pipe_file(LOCK, CONTENT)
    first.rm_file(LOCK)
    second.pipe_file(LOCK, CONTENT)
    with pytest.raises(AccessDenied):
        first.rm_file(LOCK)
    second.rm_file(LOCK)


def test_who_may_delete_locks_removes_any(files: PolicyFileSystem) -> None:
    files.asking(under(grant())).pipe_file(LOCK, CONTENT)
    deleting = PolicyFileSystem(files.fs, files.root, "rlwd")
    with pytest.raises(AccessDenied):
        deleting.asking(under(replace(grant("job-2"), deletes=("snapshots/", "data/")))).rm_file(LOCK)
    deleting.asking(under(replace(grant("job-2"), deletes=("locks/",)))).rm_file(LOCK)
    assert not files.exists(LOCK)


def test_a_lock_that_is_named_has_to_be_there(files: PolicyFileSystem) -> None:
    with pytest.raises((NotFound, FileNotFoundError)):
        files.asking(under(grant(locks=(NAME,)))).rm_file(LOCK)


def test_the_book_forgets_the_oldest() -> None:
    book = LockBook(remembered=2)
    for name in ("a", "b", "c"):
        book.wrote(name, grant())
    assert [book.may_remove(name, grant()) for name in ("a", "b", "c")] == [False, True, True]
