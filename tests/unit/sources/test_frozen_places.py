"""Backups of files from snapshots of btrfs subvolumes, on a disk in a file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snappy.errors import SourceDenied, SourceError
from snappy.jobs.messages import Result
from snappy.repository.entries import Entry, each_entry
from snappy.sources import btrfs, frozen_places
from snappy.sources.files import FilesOptions, FilesSource
from snappy.sources.site import Site
from tests.support.background import repeated
from tests.support.disks import BTRFS, EXT4, Disk, disk
from tests.support.plugin_jobs import Jobs

pytestmark = [pytest.mark.btrfs, pytest.mark.loop]
MIB = 1 << 20


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    with disk(tmp_path_factory.mktemp("btrfs"), 256 * MIB, BTRFS) as made:
        yield made


@pytest.fixture
def place(whole: Disk) -> Iterator[Path]:
    """An empty subvolume."""
    made = whole.place / "srv"
    subvolume(made)
    yield made
    for found in sorted((Path(folder) for folder, _, _ in os.walk(made)), reverse=True):
        if os.lstat(found).st_ino == btrfs.TOP_INODE:
            subprocess.run(["btrfs", "-q", "subvolume", "delete", found], check=True)
    assert not made.exists()


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path, "files", {})


def subvolume(path: Path) -> Path:
    subprocess.run(["btrfs", "-q", "subvolume", "create", path], check=True)
    return path


def ours(place: Path) -> list[str]:
    return [name for name in os.listdir(place) if name.startswith(".snappy")]


async def contents(jobs: Jobs, to: Path, place: Path) -> dict[str, str]:
    """What the newest snapshot has of it."""
    shutil.rmtree(to, ignore_errors=True)
    await jobs.restore(to=str(to))
    there = to / place.relative_to("/")
    return {str(path.relative_to(there)): path.read_text() for path in sorted(there.rglob("*")) if path.is_file()}


async def test_two_files_that_are_kept_equal_are_equal(jobs: Jobs, place: Path, tmp_path: Path) -> None:
    """The writer sets the first, then the last; between them lie files enough to read for a while."""
    for number in range(1500):
        (place / f"m-{number:04}").write_text(f"content {number}")
    ends = [os.open(place / name, os.O_RDWR | os.O_CREAT) for name in ("a", "z")]

    def write(count: int) -> None:
        for end in ends:
            os.pwrite(end, b"%012d" % count, 0)

    write(0)
    apart = {}
    with repeated(write):
        for chosen in ("never", "required"):
            await jobs.backup(paths=[str(place)], snapshot=chosen)
            shutil.rmtree(tmp_path / "back", ignore_errors=True)
            await jobs.restore(to=str(tmp_path / "back"))
            first, last = (int((tmp_path / "back" / place.relative_to("/") / name).read_text()) for name in "az")
            apart[chosen] = abs(first - last)
    for end in ends:
        os.close(end)
    assert apart["never"] > 1, "the files were read faster than they are written to"
    assert apart["required"] <= 1
    assert ours(place) == []


async def test_what_is_unchanged_counts_as_unchanged_whichever_snapshot_it_is_read_from(
    jobs: Jobs, place: Path
) -> None:
    (place / "folder").mkdir()
    for name in ("one", "folder/two"):
        (place / name).write_text(name)
    (place / "folder" / "big").write_bytes(os.urandom(2 * MIB))
    results: list[Result] = [
        await jobs.backup(paths=[str(place / "folder"), str(place / "one")], snapshot=chosen)
        for chosen in ("never", "required", "auto", "never")
    ]
    assert [(result.files, result.files_unmodified, result.warnings) for result in results] == [
        (3, 0, []),
        (3, 3, []),
        (3, 3, []),
        (3, 3, []),
    ]


async def test_subvolumes_and_mounts_below_are_read_too(jobs: Jobs, place: Path, tmp_path: Path) -> None:
    (place / "folder").mkdir()
    inner = subvolume(place / "folder" / "inner")
    subvolume(inner / "innermost")
    (inner / "innermost" / "file").write_text("innermost")
    (inner / "file").write_text("inner")
    (place / "file").write_text("outer")
    (place / "mounted").mkdir()
    (place / "mounted" / "hidden").write_text("hidden")
    expected = {"file": "outer", "folder/inner/file": "inner", "folder/inner/innermost/file": "innermost"}
    await jobs.backup(paths=[str(place)], snapshot="required")
    assert await contents(jobs, tmp_path / "back", place) == expected | {"mounted/hidden": "hidden"}
    with disk(tmp_path, 8 * MIB, EXT4) as other:
        (other.place / "over").write_text("mounted")
        subprocess.run(["mount", "--bind", other.place, place / "mounted"], check=True)
        with pytest.raises(SourceError, match="mounted is not on btrfs"):
            await jobs.backup(paths=[str(place)], snapshot="required")
        await jobs.backup(paths=[str(place)])
        assert await contents(jobs, tmp_path / "back", place) == expected | {"mounted/over": "mounted"}
        await jobs.backup(paths=[str(place)], snapshot="required", one_file_system=True)
        assert await contents(jobs, tmp_path / "back", place) == {"file": "outer"}
        await jobs.backup(paths=[str(place)], snapshot="required", exclude=["mounted", "folder/inner"])
        assert await contents(jobs, tmp_path / "back", place) == {"file": "outer"}
        subprocess.run(["umount", place / "mounted"], check=True)
    assert [*ours(place), *ours(inner), *ours(inner / "innermost")] == []


async def test_what_a_dead_process_left_is_removed_and_what_a_live_one_reads_is_not(jobs: Jobs, place: Path) -> None:
    (place / "file").write_text("content")
    program = """
import os, sys
from pathlib import Path
from snappy.sources.frozen_places import frozen
from snappy.sources.site import Site

with frozen([os.fsencode(sys.argv[1])], Site("site", work=sys.argv[2]), required=True, left_out=bool):
    print("frozen", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", program, str(place), str(jobs.work)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert b"frozen\n" in process.stdout
        theirs = ours(place)
        assert (await jobs.backup(paths=[str(place)], snapshot="required")).files == 1
        assert (await jobs.backup(paths=[str(place)], snapshot="never")).files == 1
        assert ours(place) == theirs != []
        process.kill()
    subvolume(place / ".snappy-snapshot-other-01234567")
    await jobs.backup(paths=[str(place)], snapshot="required")
    assert ours(place) == [".snappy-snapshot-other-01234567"]


async def test_a_failed_backup_leaves_no_snapshot(jobs: Jobs, place: Path) -> None:
    (place / "file").write_bytes(os.urandom(MIB))
    with pytest.raises(Exception, match="cancelled"):
        await jobs.backup(end_after=0, paths=[str(place)], snapshot="required")
    assert ours(place) == []


async def test_where_there_is_no_btrfs(jobs: Jobs, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    with pytest.raises(SourceError, match="is not on btrfs") as raised:
        await jobs.backup(paths=[str(tmp_path / "file")], snapshot="required")
    assert raised.value.hint
    assert (await jobs.backup(paths=[str(tmp_path / "file")])).files == 1


async def test_where_no_snapshot_can_be_made(jobs: Jobs, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "file").write_text("content")
    subprocess.run(["btrfs", "property", "set", place, "ro", "true"], check=True)
    with pytest.raises(SourceError, match=r"no snapshot of .* can be made: Read-only file system"):
        await jobs.backup(paths=[str(place)], snapshot="required")
    assert (await jobs.backup(paths=[str(place)])).files == 1
    subprocess.run(["btrfs", "property", "set", place, "ro", "false"], check=True)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SourceDenied, match="only root"):
        await jobs.backup(paths=[str(place)], snapshot="required")
    assert (await jobs.backup(paths=[str(place)])).files == 1


async def test_the_scout_and_the_census_read_the_same(place: Path, tmp_path: Path) -> None:
    (place / "folder").mkdir()
    (place / "folder" / "file").write_text("before")
    source = FilesSource(FilesOptions(paths=(str(place),), snapshot="required"), Site("site", work=str(tmp_path)))
    async with source.snap() as frozen:
        (place / "folder" / "file").write_text("after, and longer")
        recipe: Any = source.backwards(frozen)
        module, _, name = recipe.maker.partition(":")
        maker = getattr(sys.modules[module], name)
        for entries in (source.export(frozen), maker(*recipe.arguments)):
            found = [entry for entry in each_entry(entries) if isinstance(entry, Entry) and entry.open]
            assert [entry.path for entry in found] == [os.fsencode(place / "folder" / "file")]
            assert found[0].open
            with found[0].open() as file:
                assert file.read() == b"before"
        assert list(source.sizes(frozen)) == [len("before")]


def test_a_mount_is_read_as_the_kernel_writes_it() -> None:
    line = rb"36 35 98:0 /mnt1 /srv/a\040b\134 rw,noatime master:1 - btrfs /dev/loop0 rw,errors=continue"
    assert frozen_places._mount(line) == (b"/srv/a b\\", "btrfs")
