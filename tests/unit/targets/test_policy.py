from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import ClassVar

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from snappy.bus.grants import Grant
from snappy.errors import AccessDenied, AlreadyExists, AttemptOver, Corrupt, NotFound, RepositoryExists, UsageError
from snappy.repository import configuration
from snappy.repository.keys import ScryptCost
from snappy.repository.store import FileType, Store
from snappy.targets.local import DurableLocalFileSystem
from snappy.targets.policy import APPEND_ONLY, PolicyFileSystem, clean

CONTENT = b"an object of a repository"
NAME = hashlib.sha256(CONTENT).hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()


def policy(rights: str = "rlwWd") -> PolicyFileSystem:
    return PolicyFileSystem(MemoryFileSystem(), f"/{secrets.token_hex(8)}", rights)


def filled(rights: str) -> PolicyFileSystem:
    """One with an object at ``there`` and a lock, whatever ``rights`` allow."""
    guarded = policy(rights)
    free = PolicyFileSystem(guarded.fs, guarded.root, "rlwWd")
    free.pipe_file("there", b"old")
    free.pipe_file(f"locks/{NAME}", CONTENT)
    return guarded


# ---- rights


@pytest.mark.parametrize("rights", ["lwWd", "wWd", ""])
def test_without_r_nothing_is_read(rights: str) -> None:
    with pytest.raises(AccessDenied):
        filled(rights).cat_file("there")
    with pytest.raises(PermissionError):
        filled(rights).open("there", "rb")


@pytest.mark.parametrize("call", ["ls", "find", "info"])
def test_without_l_nothing_is_listed(call: str) -> None:
    with pytest.raises(AccessDenied):
        getattr(filled("rwWd"), call)("")


def test_without_w_nothing_is_made() -> None:
    guarded = filled("rlWd")
    for attempt in (
        lambda: guarded.pipe_file("new", b""),
        lambda: guarded.mkdir("new"),
        lambda: guarded.makedirs("new"),
        lambda: guarded.cp_file("there", "new"),
        lambda: guarded.open("new", "wb"),
    ):
        with pytest.raises(AccessDenied):
            attempt()
    assert sorted(guarded.ls("", detail=False)) == ["locks", "there"]


def test_append_only_takes_what_is_new_and_keeps_what_is_old() -> None:
    guarded = filled(APPEND_ONLY)
    guarded.pipe_file("new", b"new")
    with pytest.raises(AccessDenied):
        guarded.pipe_file("there", b"replaced")
    with pytest.raises(AlreadyExists):
        guarded.pipe_file("there", b"replaced", mode="create")
    with pytest.raises(AccessDenied):
        guarded.rm_file("there")
    assert guarded.cat_file("there") == b"old"


def test_append_only_lets_locks_go() -> None:
    guarded = filled(APPEND_ONLY)
    guarded.rm_file(f"locks/{NAME}")
    assert not guarded.exists(f"locks/{NAME}")


@pytest.mark.parametrize("path", ["locks/../there", "locks/./../there", "/locks/..//there"])
def test_the_way_out_of_locks_is_shut(path: str) -> None:
    guarded = filled(APPEND_ONLY)
    with pytest.raises(AccessDenied):
        guarded.rm_file(path)
    assert guarded.exists("there")


def test_a_reader_cannot_delete_locks() -> None:
    with pytest.raises(AccessDenied):
        filled("rl").rm_file(f"locks/{NAME}")


def test_all_rights_replace_and_delete() -> None:
    guarded = filled("rlwWd")
    guarded.pipe_file("there", b"replaced")
    assert guarded.cat_file("there") == b"replaced"
    guarded.rm_file("there")
    assert not guarded.exists("there")


def test_an_unknown_letter_is_refused() -> None:
    with pytest.raises(UsageError):
        policy("rlx")


# ---- whoever is asked beyond the policy


def test_each_operation_asks_for_its_right() -> None:
    asked: list[str] = []
    guarded = filled("rlwWd").asking(asked.append)
    for call, expected in (
        (lambda: guarded.cat_file("there"), "r"),
        (lambda: guarded.ls(""), "l"),
        (lambda: guarded.pipe_file("new", b"", mode="create"), "ww"),
        (lambda: guarded.pipe_file("there", b""), "wWW"),
        (lambda: guarded.rm_file("there"), "d"),
        (lambda: guarded.rm_file(f"locks/{NAME}"), "w"),
    ):
        asked.clear()
        call()
        assert "".join(asked) == expected


def test_a_grant_that_runs_out_on_the_way_stops_the_object() -> None:
    asked: list[str] = []

    def ask(right: str) -> None:
        asked.append(right)
        if len(asked) > 1:
            raise AttemptOver("the grant ran out")

    guarded = policy()
    with guarded.asking(ask).write("new", exclusive=True) as draft:
        draft.write(b"content")
        with pytest.raises(AttemptOver):
            draft.commit()
    assert not guarded.exists("new")


def test_a_caller_without_w_in_the_grant_cannot_use_the_policy_s() -> None:
    def ask(right: str) -> None:
        if right == "W":
            raise AccessDenied("the grant does not hold that")

    guarded = filled("rlwWd")
    with pytest.raises(AccessDenied):
        guarded.asking(ask).pipe_file("there", b"replaced")
    assert guarded.cat_file("there") == b"old"


# ---- places


@given(st.lists(st.sampled_from(["a", "..", ".", "", "b", "...", "\0", "~", "//", "memory:"]), max_size=8))
def test_a_clean_path_stays_below_the_root(segments: list[str]) -> None:
    try:
        path = clean("/".join(segments))
    except AccessDenied:
        assert {".", "..", "\0"} & set(segments)
        return
    assert not path.startswith("/")
    assert not {"", ".", ".."} & set(path.split("/")) or path == ""


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/../x", "..", "a/..", "./a", "a\0b"])
@pytest.mark.parametrize("call", ["info", "ls", "find", "cat_file", "rm_file", "mkdir", "makedirs", "rmdir"])
def test_no_operation_leaves_the_root(path: str, call: str) -> None:
    with pytest.raises(PermissionError):
        getattr(policy(), call)(path)


@pytest.mark.parametrize("path", ["../x", "/../../x"])
def test_nothing_is_written_outside_the_root(path: str) -> None:
    guarded = policy()
    for attempt in (lambda: guarded.pipe_file(path, b""), lambda: guarded.cp_file(path, "x")):
        with pytest.raises(PermissionError):
            attempt()
    guarded.pipe_file("a", b"")
    with pytest.raises(PermissionError):
        guarded.cp_file("a", path)


def test_names_are_relative_to_the_root() -> None:
    guarded = policy()
    guarded.pipe_file("/data/ab/x", b"12345")
    assert guarded.find("") == ["data/ab/x"]
    assert guarded.ls("data", detail=False) == ["data/ab"]
    assert guarded.info("data/ab/x")["name"] == "data/ab/x"
    assert (guarded.info("")["name"], guarded.info("")["type"]) == ("", "directory")


def test_the_root_is_there_before_the_first_object() -> None:
    assert policy().ls("") == []
    with pytest.raises(FileNotFoundError):
        policy().ls("data")


# ---- names


@pytest.mark.parametrize("folder", ["data/ab", "data", "index", "snapshots", "keys", "locks"])
def test_an_object_of_a_repository_is_what_its_name_says(folder: str) -> None:
    guarded = policy()
    guarded.pipe_file(f"{folder}/{NAME}", CONTENT)
    with pytest.raises(Corrupt):
        guarded.pipe_file(f"{folder}/{OTHER}", CONTENT)
    assert guarded.find("") == [f"{folder}/{NAME}"]


def test_the_configuration_may_have_any_name() -> None:
    guarded = policy()
    guarded.pipe_file("config", CONTENT)
    assert guarded.cat_file("config") == CONTENT


def test_a_copy_is_checked_too() -> None:
    guarded = policy()
    guarded.pipe_file("config", CONTENT)
    guarded.cp_file("config", f"index/{NAME}")
    with pytest.raises(Corrupt):
        guarded.cp_file("config", f"index/{OTHER}")


def test_a_replacement_is_checked_before_the_old_goes() -> None:
    guarded = policy()
    guarded.pipe_file(f"data/{NAME}", CONTENT)
    with pytest.raises(Corrupt):
        guarded.pipe_file(f"data/{NAME}", b"forged")
    assert guarded.cat_file(f"data/{NAME}") == CONTENT


# ---- files


def test_a_file_shows_when_it_is_closed() -> None:
    guarded = policy()
    with guarded.open("new", "wb") as file:
        file.write(b"one ")
        assert not guarded.exists("new")
        file.write(b"two")
    assert guarded.cat_file("new") == b"one two"
    with guarded.open("new", "rb") as file:
        assert file.read() == b"one two"


def test_a_file_left_by_an_exception_does_not_show() -> None:
    guarded = policy()

    def write_half() -> None:
        with guarded.open("new", "wb") as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert not guarded.exists("new")


def test_a_file_nobody_closed_does_not_show() -> None:
    guarded = policy()
    file = guarded._open("new", "wb")
    file.write(b"half")
    del file
    assert not guarded.exists("new")


def test_readers_of_memory_do_not_share_a_position() -> None:
    guarded = policy()
    guarded.pipe_file("x", b"0123456789")
    with guarded.open("x") as one, guarded.open("x") as two:
        assert (one.read(4), two.read(2), one.read(2), two.read(2)) == (b"0123", b"01", b"45", b"23")


def test_append_mode_is_refused() -> None:
    with pytest.raises(NotImplementedError):
        policy().open("x", "ab")


def test_a_missing_object_is_missing() -> None:
    with pytest.raises((NotFound, FileNotFoundError)):
        policy().info("none")
    assert not policy().exists("none")


# ---- grants that run out


class Slow(MemoryFileSystem):
    """An object store whose uploads take as long as they may, and more."""

    protocol, async_impl, cachable = "s3", True, False
    limits: ClassVar[list[float | None]] = []

    def pipe_file(self, path: str, value: bytes, timeout: float | None = None, **kwargs: object) -> None:
        self.limits.append(timeout)
        raise TimeoutError


def test_the_grant_is_asked_for_when_all_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (steps.append("sync"), fsync(handle)))
    guarded = PolicyFileSystem(DurableLocalFileSystem(), str(tmp_path)).asking(steps.append)
    with guarded.write("new", exclusive=True) as draft:
        draft.write(CONTENT)
        steps.clear()
        draft.commit()
    assert steps == ["sync", "w", "sync"]  # the content, the grant, the folder


def test_an_upload_is_cut_off_when_its_grant_runs_out() -> None:
    grant = Grant("job", 2, "site", "vault", "rlw", expires=110.0)
    now = [100.0]

    def ask(_right: str) -> Grant:
        return grant

    guarded = PolicyFileSystem(Slow(), "/r", ask=ask, clock=lambda: now[0])
    Slow.limits.clear()
    with pytest.raises(TimeoutError):
        guarded.pipe_file("new", CONTENT)
    now[0] = 109.9
    with pytest.raises(AttemptOver, match="attempt 2"):
        guarded.pipe_file("new", CONTENT)
    assert Slow.limits == pytest.approx([10.0, 0.1])


# ---- keys


def test_a_job_takes_away_the_key_that_it_wrote_and_no_other() -> None:
    def under(job: str, locks: tuple[str, ...] = ()) -> PolicyFileSystem:
        return target.asking(lambda _right: Grant(job, 1, "site", "vault", "rlw", 1e12, locks))

    target = policy(APPEND_ONLY)
    key = f"keys/{NAME}"
    under("job-1").pipe_file(key, CONTENT)
    for thief in (target, under("job-2"), under("job-2", (NAME, key))):
        with pytest.raises(AccessDenied):
            thief.rm_file(key)
    under("job-1").rm_file(key)
    assert not target.exists(key)
    under("job-2").pipe_file(key, CONTENT)
    with pytest.raises(AccessDenied):
        under("job-1").rm_file(key)


def test_of_two_that_make_a_repository_the_loser_s_key_goes() -> None:
    def store(job: str) -> Store:
        grant = Grant(job, 1, "site", "vault", "rlw", 1e12)
        return Store(target.asking(lambda _right: grant), "")

    class Late(Store):
        """Looks before the winner has begun."""

        def exists(self, kind: FileType, name: str) -> bool:
            return False

        def list(self, kind: FileType) -> list[tuple[str, int]]:
            return []

    target = policy(APPEND_ONLY)
    cheap = ScryptCost(n=2, r=1, p=1)
    configuration.create(store("job-1"), "password", cost=cheap)
    before = target.find("keys")
    loser = store("job-2")
    loser.__class__ = Late
    with pytest.raises(RepositoryExists):
        configuration.create(loser, "password", cost=cheap)
    assert target.find("keys") == before


# ---- what a grant lets be deleted


def test_a_grant_says_what_may_be_deleted() -> None:
    grant = Grant("job", 1, "site", "vault", "rlwd", 1e12, deletes=("snapshots/", "data/"))
    target = policy().asking(lambda _right: grant)
    kept = ("config", f"keys/{NAME}", f"index/{NAME}", "snapshots-old", "dataset")
    for path in (*kept, f"snapshots/{NAME}", f"data/{NAME[:2]}/{NAME}"):
        PolicyFileSystem(target.fs, target.root, "rlwWd").pipe_file(path, CONTENT)
    for path in (*kept, f"data/../keys/{NAME}", f"data//../keys/{NAME}"):
        with pytest.raises(AccessDenied):
            target.rm_file(path)
    target.rm_file(f"snapshots/{NAME}")
    target.rm_file(f"data/{NAME[:2]}/{NAME}")
    assert sorted(target.find("")) == sorted(kept)
