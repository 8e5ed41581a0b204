"""What a source service gives its plug-ins."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from snappy.errors import BadOptions, SourceError, UsageError
from snappy.sources import site as site_module
from snappy.sources.site import Site

HOLDS_A_FOLDER = """
import sys, time
from snappy.sources import site as site_module
from snappy.sources.site import Site
with Site(work=sys.argv[1]).work_folder("tape") as folder:
    (folder / "copy").write_bytes(b"x")
    print(folder, file=sys.stderr, flush=True)
    time.sleep(100)
"""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    host: str
    port: int = 7


def site(**named: dict[str, object]) -> Site:
    return Site("edge", {"tape": named})


def test_settings_have_a_name() -> None:
    one = site(main={"host": "a"}, spare={"host": "b", "port": 8})
    assert one.names("tape") == ["main", "spare"]
    assert one.settings("tape", Settings, "spare") == Settings("b", 8)
    with pytest.raises(BadOptions, match="no tape named 'other'") as caught:
        one.settings("tape", Settings, "other")
    assert "it has: main, spare" in caught.value.hint


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"host": 3}, r"source.edge.plugins.tape.main: Expected `str`.*at `\$.host`"),
        ({"hots": "a"}, "hots"),
    ],
)
def test_settings_that_nobody_understands_are_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        site(main=given).check("tape", Settings)


def test_a_plugin_without_settings_has_none() -> None:
    site().check("tape", None)
    with pytest.raises(UsageError, match="the plug-in tape has no settings"):
        site(main={}).check("tape", None)


def test_a_work_folder_is_private_and_goes_again(tmp_path: Path) -> None:
    with Site(work=str(tmp_path)).work_folder("tape") as folder:
        assert folder.parent == tmp_path / "tape"
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "file").write_text("x")
    assert not folder.exists()


def test_what_a_dead_process_left_is_removed_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS_A_FOLDER, str(tmp_path)]
    processes = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    folders = [Path(process.stderr.readline().strip()) for process in processes if process.stderr]
    try:
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        assert all((folder / "copy").exists() for folder in folders)
        with Site(work=str(tmp_path)).work_folder("tape"):
            assert [folder.exists() for folder in folders] == [False, True]
    finally:
        processes[1].kill()
        for process in processes:
            process.wait()
            assert process.stderr
            process.stderr.close()


def test_another_job_may_come_to_its_end_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def after_the_end(folder: Path) -> int:
        shutil.rmtree(other, ignore_errors=True)
        return open_lock(folder)

    other = tmp_path / "tape" / f"{site_module.OURS}other"
    other.mkdir(parents=True)
    open_lock = site_module._open_lock
    monkeypatch.setattr(site_module, "_open_lock", lambda f: after_the_end(f) if f == other else open_lock(f))
    with Site(work=str(tmp_path)).work_folder("tape") as folder:
        assert folder.exists()


def test_no_place_for_a_work_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(SourceError, match="no folder to work in can be made"),
        Site(work=str(tmp_path / "file")).work_folder("tape"),
    ):
        pytest.fail("there is no such folder")


def test_descriptors_do_not_leak(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with Site(work=str(tmp_path)).work_folder("tape"):
            pass
    assert len(os.listdir("/proc/self/fd")) == before
