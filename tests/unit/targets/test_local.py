from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from snappy.targets import local
from snappy.targets.drafts import PART_SUFFIX
from snappy.targets.local import DurableLocalFileSystem, make_folders, sweep

HALF_WRITTEN = """
import os, sys
from snappy.targets.local import DurableLocalFileSystem
draft = DurableLocalFileSystem().draft(sys.argv[1], exclusive=False)
draft.write(b"half")
os._exit(9)
"""


def test_the_file_is_synced_before_its_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def watch_sync(handle: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def watch_rename(*names: Path) -> None:
        steps.append("rename")
        rename(*names)

    made = DurableLocalFileSystem().draft(str(tmp_path / "x"), exclusive=False)
    made.write(b"content")
    monkeypatch.setattr(os, "fsync", watch_sync)
    monkeypatch.setattr(os, "rename", watch_rename)
    made.commit()
    assert steps == ["file", "rename", "folder"]


def test_new_folders_reach_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(local, "sync_folder", synced.append)
    make_folders(tmp_path / "a" / "b")
    assert synced == [tmp_path, tmp_path / "a"]


def test_what_a_dead_writer_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", HALF_WRITTEN, str(tmp_path / "data" / "dead")], check=False)
    assert done.returncode == 9
    living = DurableLocalFileSystem().draft(str(tmp_path / "data" / "living"), exclusive=True)
    living.write(b"content")
    assert len(list((tmp_path / "data").iterdir())) == 2
    assert sweep(tmp_path) == 1
    living.commit()
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["living"]


def test_half_written_files_never_show(tmp_path: Path) -> None:
    fs = DurableLocalFileSystem()
    made = fs.draft(str(tmp_path / "x"), exclusive=False)
    assert fs.ls(str(tmp_path)) == fs.find(str(tmp_path)) == []
    assert [path.name.endswith(PART_SUFFIX) for path in tmp_path.iterdir()] == [True]
    made.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = DurableLocalFileSystem().draft(str(tmp_path / "x"), exclusive=False)

    def full(*_arguments: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            made.write(b"content")
    made.discard()
    assert list(tmp_path.iterdir()) == []


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:3]))
    made = DurableLocalFileSystem().draft(str(tmp_path / "x"), exclusive=False)
    made.write(b"0123456789")
    made.commit()
    assert (tmp_path / "x").read_bytes() == b"0123456789"


def test_objects_and_folders_are_private(tmp_path: Path) -> None:
    DurableLocalFileSystem().draft(str(tmp_path / "data" / "x"), exclusive=False).commit()
    assert stat.S_IMODE((tmp_path / "data" / "x").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_a_folder_is_no_place_for_an_object(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    made = DurableLocalFileSystem().draft(str(tmp_path / "x"), exclusive=False)
    with pytest.raises(IsADirectoryError):
        made.commit()
    made.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_file_is_no_place_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        DurableLocalFileSystem().draft(str(tmp_path / "x" / "y"), exclusive=False)


def test_folders_are_made_once(tmp_path: Path) -> None:
    fs = DurableLocalFileSystem()
    fs.mkdir(str(tmp_path / "a" / "b"))
    fs.makedirs(str(tmp_path / "a" / "b"), exist_ok=True)
    for again in (lambda: fs.mkdir(str(tmp_path / "a")), lambda: fs.makedirs(str(tmp_path / "a"))):
        with pytest.raises(FileExistsError):
            again()
    with pytest.raises(FileNotFoundError):
        fs.mkdir(str(tmp_path / "c" / "d"), create_parents=False)


def test_a_name_that_a_dead_writer_took_is_on_disk_before_it_is_called_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(b"shown, but its name may not have reached the disk")
    synced: list[Path] = []
    monkeypatch.setattr(local, "sync_folder", synced.append)
    made = DurableLocalFileSystem().draft(str(tmp_path / "x"), exclusive=True)
    with pytest.raises(FileExistsError):
        made.commit()
    made.discard()
    assert synced == [tmp_path]
