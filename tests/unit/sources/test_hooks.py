"""Hooks around a backup: real programs, a repository in a folder, no bus."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from snappy.config import Hook
from snappy.errors import (
    BadOptions,
    JobCancelled,
    NotUndone,
    ProgramFailed,
    SourceError,
    SourceMissing,
    SourceUnavailable,
)
from snappy.jobs.kinds import BackupCommand
from snappy.jobs.messages import Result
from snappy.repository.progress import Progress
from snappy.repository.store import Store
from snappy.sources.files import FilesSource
from snappy.sources.hooks import undo_left
from snappy.sources.site import Site
from snappy.sources.tasks import prepare
from snappy.sources.workshop import Workshop
from tests.support.plugin_jobs import NAMES, Hold


def said(*words: str) -> list[str]:
    """A program that writes ``words``, which may be variables, into the file ``said`` beside the data."""
    return ["/bin/sh", "-c", f'echo {" ".join(words)} >> "$SAID"']


class Place:
    """A source service with hooks, the files that it backs up, and what its hooks said."""

    def __init__(self, folder: Path, **hooks: Hook) -> None:
        self._folder, self.hooks = folder, hooks
        self.data = folder / "data"
        self.data.mkdir()
        (self.data / "file").write_text("content")

    def site(self) -> Site:
        environment = {"SAID": str(self._folder / "said")}
        hooks = {
            name: Hook(
                hook.before, hook.after, hook.on_error, hook.around, hook.seconds, environment | hook.environment
            )
            for name, hook in self.hooks.items()
        }
        return Site("site", work=str(self._folder / "work"), hooks=hooks)

    def hold(self, end_after: int | None = None) -> Any:
        return Hold(Progress(), end_after)

    async def backup(self, *names: str, hold: Any = None, path: Path | None = None) -> Result:
        options = {"paths": [str(path or self.data)]}
        command = BackupCommand(**NAMES, options=options, init=True, hooks=list(names))
        store = Store(LocalFileSystem(), str(self._folder / "repository"))
        shop = Workshop(
            hold=hold or self.hold(), store=store, password="right", progress=Progress(), owner="snappy.s.r", host="h"
        )
        return await prepare("backup", command, self.site()).work(shop)

    def lines(self) -> list[str]:
        try:
            return (self._folder / "said").read_text().splitlines()
        except FileNotFoundError:
            return []


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The plug-in says when it freezes, reads and thaws."""
    lines = tmp_path / "said"
    snap, export = FilesSource._snap, FilesSource.export_rest

    def say(word: str) -> None:
        with lines.open("a") as file:
            file.write(f"{word}\n")

    @asynccontextmanager
    async def telling(self: FilesSource) -> AsyncIterator[Any]:
        async with snap(self) as value:
            say("freeze")
            yield value
            say("thaw")

    def reading(self: FilesSource, *arguments: Any) -> Any:
        say("read")
        return export(self, *arguments)

    monkeypatch.setattr(FilesSource, "_snap", telling)
    monkeypatch.setattr(FilesSource, "export_rest", reading)


async def test_they_are_around_all_of_it_and_undone_in_the_opposite_order(frozen: None, tmp_path: Path) -> None:
    place = Place(
        tmp_path,
        outer=Hook(said("before outer"), said("after outer"), said("error outer")),
        inner=Hook(said("before inner"), said("after inner"), said("error inner")),
    )
    await place.backup("outer", "inner")
    around = ["before outer", "before inner", "freeze", "read", "thaw", "after inner", "after outer"]
    assert place.lines() == around


async def test_one_around_the_snapshot_is_undone_before_anything_is_read(frozen: None, tmp_path: Path) -> None:
    place = Place(tmp_path, short=Hook(said("before"), said("after"), around="snapshot"))
    await place.backup("short")
    assert place.lines() == ["before", "freeze", "after", "read", "thaw"]


async def test_what_they_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_SERVICES_OWN", "secret")
    words = ["$SNAPPY_HOOK", "$SNAPPY_JOB", "$SNAPPY_SUBMITTER", "[$SNAPPY_SNAPSHOT]", "[$SNAPPY_ERROR]"]
    place = Place(
        tmp_path, quiet=Hook(said(*words, "$THE_SERVICES_OWN", "$LOUD"), said(*words), environment={"LOUD": "yes"})
    )
    made = await place.backup("quiet")
    assert place.lines() == ["quiet job-1 alice [] [] yes", f"quiet job-1 alice [{made.snapshot}] []"]


async def test_a_before_that_fails_lets_nothing_be_read_and_what_was_begun_is_undone(
    frozen: None, tmp_path: Path
) -> None:
    failing = ["/bin/sh", "-c", "echo half frozen >&2; exit 7"]
    place = Place(
        tmp_path,
        good=Hook(said("before good"), said("after good", "$SNAPPY_ERROR"), said("error good")),
        bad=Hook(failing, said("after bad"), said("error bad", "$SNAPPY_ERROR")),
        never=Hook(said("before never"), said("after never")),
    )
    with pytest.raises(ProgramFailed, match="hook bad failed: sh ended with code 7: half frozen"):
        await place.backup("good", "bad", "never")
    assert place.lines() == [
        "before good",
        "error bad program-failed",
        "after bad",
        "error good",
        "after good program-failed",
    ]


async def test_a_backup_that_fails_is_told_and_undone(tmp_path: Path) -> None:
    place = Place(tmp_path, hook=Hook(said("before"), said("after", "$SNAPPY_ERROR"), said("error", "$SNAPPY_ERROR")))
    with pytest.raises(SourceMissing):
        await place.backup("hook", path=tmp_path / "nowhere")
    assert place.lines() == ["before", "error source-missing", "after source-missing"]


async def test_a_cancelled_backup_is_undone(tmp_path: Path) -> None:
    place = Place(tmp_path, hook=Hook(said("before"), said("after", "$SNAPPY_ERROR"), ["/bin/false"]))
    with pytest.raises(JobCancelled):
        await place.backup("hook", hold=place.hold(end_after=0))
    assert place.lines() == ["before", "after cancelled"]


async def test_a_before_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    place = Place(tmp_path, slow=Hook(["sleep", "60"], said("after"), seconds=0.2))
    async with asyncio.timeout(20):
        with pytest.raises(ProgramFailed, match=r"sleep did not end within 0\.2 seconds"):
            await place.backup("slow")
    assert place.lines() == ["after"]


async def test_a_job_that_is_cancelled_does_not_wait_for_its_before(tmp_path: Path) -> None:
    place = Place(tmp_path, slow=Hook(["sleep", "60"], said("after"), seconds=60))
    hold = place.hold()
    asyncio.get_running_loop().call_later(0.3, hold.end)
    async with asyncio.timeout(20):
        with pytest.raises(JobCancelled):
            await place.backup("slow", hold=hold)
    assert place.lines() == ["after"]


async def test_a_job_that_is_abandoned_is_undone_whole_before_anything_else_has_the_hook(tmp_path: Path) -> None:
    place = Place(
        tmp_path, hook=Hook(["sleep", "1"], ["/bin/sh", "-c", 'sleep 1; echo after >> "$SAID"'], said("error"))
    )
    job = asyncio.create_task(place.backup("hook"))
    for _ in range(12):
        await asyncio.sleep(0.2)
        job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert place.lines() == ["error", "after"]
    assert (tmp_path / "work" / "hooks" / "hook.kept").read_bytes() == b""


@pytest.mark.parametrize("is_heard", [True, False])
async def test_a_source_that_is_freezing_hears_that_the_job_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_heard: bool
) -> None:
    over = asyncio.Event()
    loop = asyncio.get_running_loop()

    @asynccontextmanager
    async def endless(self: FilesSource) -> AsyncIterator[Any]:
        await over.wait()
        if is_heard:
            raise SourceUnavailable("ended")
        yield {}

    monkeypatch.setattr(FilesSource, "_snap", endless)
    monkeypatch.setattr(FilesSource, "interrupt", lambda self: loop.call_soon_threadsafe(over.set), raising=False)
    place = Place(tmp_path, hook=Hook(said("before"), said("after", "$SNAPPY_ERROR")))
    hold = place.hold()
    loop.call_later(0.3, hold.end)
    async with asyncio.timeout(10):
        with pytest.raises(SourceUnavailable if is_heard else JobCancelled):
            await place.backup("hook", hold=hold)
    assert place.lines() == ["before", "after cancelled"]


async def test_what_cannot_be_undone_fails_the_job_that_has_its_snapshot_and_is_undone_by_the_next(
    tmp_path: Path,
) -> None:
    broken = ["/bin/sh", "-c", 'test -e "$SAID.mended" && echo after "$SNAPPY_ERROR" >> "$SAID"']
    place = Place(tmp_path, hook=Hook(said("before"), broken))
    with pytest.raises(NotUndone, match="`after` of the hook hook failed: sh ended with code 1") as raised:
        await place.backup("hook")
    assert raised.value.details["result"].snapshot
    undo_left(place.site())
    assert place.lines() == ["before"]
    (tmp_path / "said.mended").touch()
    await place.backup("hook")
    assert place.lines() == ["before", "after attempt-lost", "before", "after "]
    undo_left(place.site())
    assert len(place.lines()) == 4


async def test_that_something_else_failed_too_is_told_by_it(tmp_path: Path) -> None:
    place = Place(tmp_path, hook=Hook(after=["/bin/false"]))
    with pytest.raises(NotUndone, match=r"besides, the backup failed: .*nowhere does not exist"):
        await place.backup("hook", path=tmp_path / "nowhere")


DYING = """
import os, sys
from pathlib import Path
from snappy.config import Hook
from snappy.sources.hooks import HeldHook, Note
from snappy.sources.site import Site

note = Note(Site("site", work=sys.argv[1]), "hook")
assert note.is_free()
HeldHook("hook", Hook(["/bin/true"], ["/bin/false"]), note).begin({"SNAPPY_JOB": "lost"})
print("begun", flush=True)
if sys.argv[2] == "die":
    os.kill(os.getpid(), 9)
sys.stdin.read()
"""


def dying(work: Path, how: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", DYING, str(work), how]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"begun\n"
    return process


@pytest.mark.parametrize("by", ["service", "job"])
async def test_what_a_killed_process_did_is_undone(tmp_path: Path, by: str) -> None:
    place = Place(tmp_path, hook=Hook(said("before"), said("after", "$SNAPPY_JOB", "$SNAPPY_ERROR")))
    with dying(tmp_path / "work", "die") as process:
        process.wait()
    if by == "service":
        undo_left(place.site())
        assert place.lines() == ["after lost attempt-lost"]
    else:
        await place.backup("hook")
        assert place.lines() == ["after lost attempt-lost", "before", "after job-1"]


async def test_a_hook_is_one_jobs_at_a_time(tmp_path: Path) -> None:
    place = Place(tmp_path, hook=Hook(said("before"), said("after")))
    with dying(tmp_path / "work", "wait") as process:
        undo_left(place.site())
        assert place.lines() == []  # it is at work
        job = asyncio.create_task(place.backup("hook"))
        await asyncio.sleep(0.5)
        assert place.lines() == []
        hold = place.hold()
        asyncio.get_running_loop().call_later(0.3, hold.end)
        with pytest.raises(JobCancelled):
            await place.backup("hook", hold=hold)
        process.kill()
        await job
    assert place.lines() == ["after", "before", "after"]


async def test_two_jobs_never_wait_for_each_other(tmp_path: Path) -> None:
    place = Place(tmp_path, a=Hook(["sleep", "0.2"], said("a")), b=Hook(["sleep", "0.2"], said("b")))
    async with asyncio.timeout(20):
        await asyncio.gather(place.backup("a", "b"), place.backup("b", "a"))
    assert sorted(place.lines()) == ["a", "a", "b", "b"]
    assert place.lines() in (["b", "a", "a", "b"], ["a", "b", "b", "a"])


async def test_that_a_hook_begins_is_on_the_disk_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, written = Place(tmp_path, hook=Hook(said("before"), said("after"))), []

    def sync(file: int) -> None:
        if b"SNAPPY_JOB" in (found := os.pread(file, 1000, 0)):
            written.append((found, place.lines()))

    monkeypatch.setattr("snappy.sources.hooks.os.fsync", sync)
    await place.backup("hook")
    assert written == [(b'{"SNAPPY_JOB":"job-1","SNAPPY_SUBMITTER":"alice"}', [])]


async def test_a_note_says_nothing_of_the_job_before(tmp_path: Path) -> None:
    place = Place(tmp_path, hook=Hook(after=["/bin/false"]))
    note = tmp_path / "work" / "hooks" / "hook.kept"
    note.parent.mkdir(parents=True)
    note.write_text(f'{{"SNAPPY_JOB":"{"x" * 100}"}}')
    with pytest.raises(NotUndone):
        await place.backup("hook")
    assert note.read_bytes() == b'{"SNAPPY_JOB":"job-1","SNAPPY_SUBMITTER":"alice"}'


async def test_a_note_that_was_half_written_says_enough(tmp_path: Path) -> None:
    place = Place(tmp_path, hook=Hook(after=said("after")))
    (tmp_path / "work" / "hooks").mkdir(parents=True)
    (tmp_path / "work" / "hooks" / "hook.kept").write_bytes(b'{"SNAPPY_J')
    (tmp_path / "work" / "hooks" / "gone.kept").write_bytes(b"{}")  # not configured any more
    undo_left(place.site())
    assert place.lines() == ["after"]


def test_a_hook_that_there_is_not(tmp_path: Path) -> None:
    command = BackupCommand(**NAMES, options={"paths": [str(tmp_path)]}, hooks=["no"])
    with pytest.raises(BadOptions, match="no hook 'no'"):
        prepare("backup", command, Place(tmp_path, yes=Hook()).site())


async def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    place = Place(tmp_path, hook=Hook(said("before")))
    (tmp_path / "work").write_text("a file")
    with pytest.raises(SourceError, match="where hooks leave notes"):
        await place.backup("hook")
    assert os.listdir(tmp_path / "data") == ["file"]
