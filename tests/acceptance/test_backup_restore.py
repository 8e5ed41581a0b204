"""A backup and a restore as a user would: the command line, with nothing configured."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.support import compare
from tests.support.stack import Shell, finish


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with something of each kind that needs no privileges."""
    root = tmp_path / "tree"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "empty").mkdir(mode=0o750)
    (root / "text").write_text("to be kept\n" * 1000)
    (root / "deep" / "noise").write_bytes(os.urandom(3 << 20))
    (root / "deep" / "er" / "program").write_text("#!/bin/sh\n")
    (root / "deep" / "er" / "program").chmod(0o4755)
    (root / "link").symlink_to("deep/er/program")
    os.link(root / "text", root / "deep" / "same")
    os.mkfifo(root / "pipe")
    (root / os.fsdecode(b"not-\xff-utf8")).write_bytes(b"\xff")
    with (root / "sparse").open("wb") as file:
        file.truncate(5 << 20)
    os.utime(root / "text", ns=(1, 1_234_567_890_123_456_789))
    return root


def large(folder: Path, mebibytes: int) -> Path:
    """A tree that takes some seconds to back up."""
    root = folder / "large"
    root.mkdir()
    for number in range(mebibytes // 16):
        (root / str(number)).write_bytes(os.urandom(16 << 20))
    return root


def same(one: Path, other: Path) -> None:
    differences = list(compare.compare(os.fsencode(one), os.fsencode(other)).differences)
    assert not differences


def test_there_and_back(shell: Shell, tree: Path) -> None:
    first = shell.with_password("backup", tree, "--to", "./repo", "--init", "--tag", "mine", "--json").expect(0).json()
    assert first["state"] == "succeeded"
    assert first["result"]["files_new"] >= 6
    again = shell.with_password("backup", tree, "--to", "./repo", "--json").expect(0).json()
    assert (again["result"]["files_new"], again["result"]["files_changed"]) == (0, 0)
    assert again["result"]["bytes_read"] == 0
    assert again["result"]["bytes_stored"] < first["result"]["bytes_stored"] / 100
    shown = shell.with_password("snapshots", "--from", "./repo", "--json").expect(0).json()
    assert [each["id"] for each in shown] == [first["result"]["snapshot"], again["result"]["snapshot"]]
    assert "mine" in shown[0]["tags"]
    shell.with_password("restore", "latest", "--from", "./repo", "--to", "./back").expect(0)
    same(tree, shell.folder / "back" / str(tree).lstrip("/"))


def test_a_restore_over_what_is_there(shell: Shell, tree: Path) -> None:
    shell.with_password("backup", tree, "--to", "./repo", "--init").expect(0)
    restore = ("restore", "latest", "--from", "./repo", "--to", "./back", "--json")
    first = shell.with_password(*restore).expect(0).json()["result"]
    back = shell.folder / "back" / str(tree).lstrip("/")
    (program,) = back.rglob("program")
    program.write_bytes(b"mine")
    kept = shell.with_password(*restore, "--overwrite", "never").expect(0).json()["result"]
    assert program.read_bytes() == b"mine"
    mended = shell.with_password(*restore).expect(0).json()["result"]
    same(tree, back)
    assert (first["files_unmodified"], kept["files"], mended["files"]) == (0, 0, first["files"])
    assert 0 < mended["files_unmodified"] < first["files"]


def test_plain_words(shell: Shell, tree: Path) -> None:
    made = shell.with_password("init", "--to", "./repo").expect(0)
    assert made.out.startswith("made the repository ")
    backup = shell.with_password("backup", tree, "--to", "./repo").expect(0)
    assert backup.out.startswith("snapshot ")
    assert "files, " in backup.out
    snapshot = backup.out.split()[1].rstrip(":")
    listed = shell.with_password("snapshots", "--from", "./repo").expect(0)
    assert snapshot in listed.out
    restored = shell.with_password("restore", snapshot[:6], "--from", "./repo", "--to", "back").expect(0)
    assert restored.out.startswith(f"restored snapshot {snapshot}")
    jobs = shell.run("jobs", "list").expect(0)
    assert [line.split()[1:3] for line in jobs.out.splitlines()[1:]] == [
        ["restore", "succeeded"],
        ["backup", "succeeded"],
        ["init", "succeeded"],
    ]


def test_only_what_is_wanted(shell: Shell, tree: Path) -> None:
    (shell.folder / "patterns").write_text("# no noise\nnoise\n")
    shell.with_password(
        "backup", tree, "--to", "./repo", "--init", "--exclude-file", shell.folder / "patterns", "--exclude", "sparse"
    ).expect(0)
    shell.with_password("restore", "latest", "--from", "./repo", "--to", "./back", "--include", "er").expect(0)
    back = shell.folder / "back" / str(tree).lstrip("/")
    assert sorted(path.name for path in back.rglob("*")) == ["deep", "er", "program"]


@pytest.mark.parametrize("way", ["--password-command", "environment"])
def test_other_ways_to_give_the_password(shell: Shell, tree: Path, way: str) -> None:
    shell.with_password("init", "--to", "./repo").expect(0)
    if way == "environment":
        shell.environ["SNAPPY_PASSWORD"] = shell.password
        shell.run("backup", tree, "--to", "./repo").expect(0)
    else:
        shell.run("backup", tree, "--to", "./repo", way, f"cat {shell.password_file}").expect(0)


def test_the_password_is_nowhere(shell: Shell, tree: Path) -> None:
    """Neither what is printed nor what is kept of a job holds it."""
    done = shell.with_password("backup", tree, "--to", "./repo", "--init", "--json", "--log-level", "debug").expect(0)
    kept = [path for path in shell.state_dir.rglob("*") if path.is_file()]
    assert kept
    texts = [done.out.encode(), done.err.encode(), *(path.read_bytes() for path in kept)]
    assert not any(shell.password.encode() in text for text in texts)


def test_what_cannot_be_kept_is_a_warning(shell: Shell) -> None:
    tree = shell.folder / "tree"
    tree.mkdir()
    (tree / "text").write_text("words")
    (tree / "link").symlink_to("text")
    shell.with_password("backup", tree, "--to", "./repo", "--init").expect(0)
    done = shell.with_password("restore", "latest", "--from", "./repo", "--to", "memory://back", "--json").expect(3)
    assert "warning: " in done.err
    assert done.json()["result"]["warning_count"] > 0


def test_an_interrupt_cancels_and_leaves_a_clean_repository(shell: Shell) -> None:
    shell.with_password("init", "--to", "./repo").expect(0)
    tree = large(shell.folder, 384)
    backup = shell.start("backup", tree, "--to", "./repo", "--password-file", shell.password_file)
    wait_for(shell.folder / "repo" / "data")
    began = time.monotonic()
    backup.send_signal(signal.SIGINT)
    finish(backup).expect(130)
    assert time.monotonic() - began < 20
    assert list((shell.folder / "repo" / "locks").iterdir()) == []
    assert shell.run("jobs", "list", "--json").expect(0).json()[0]["state"] == "cancelled"
    shell.with_password("backup", tree, "--to", "./repo").expect(0)


def test_what_a_killed_command_left_is_failed_and_not_revived(shell: Shell) -> None:
    tree = large(shell.folder, 384)
    backup = shell.start("backup", tree, "--to", "./repo", "--init", "--password-file", shell.password_file)
    wait_for(shell.folder / "repo" / "data")
    backup.kill()
    backup.communicate()
    (job,) = shell.run("jobs", "list", "--json").expect(0).json()
    assert (job["state"], job["error"]["code"]) == ("failed", "interrupted")
    shell.with_password("backup", tree, "--to", "./repo").expect(0)
    states = [each["state"] for each in shell.run("jobs", "list", "--json").expect(0).json()]
    assert states == ["succeeded", "failed"]
    assert shell.run("audit", "verify").expect(0)


def test_two_commands_beside_one_another_share_a_server(shell: Shell, tree: Path) -> None:
    commands = [
        shell.start("backup", tree, "--to", f"./repo-{n}", "--init", "--password-file", shell.password_file)
        for n in range(3)
    ]
    for command in commands:
        finish(command).expect(0)
    jobs = shell.run("jobs", "list", "--json").expect(0).json()
    assert [job["state"] for job in jobs] == ["succeeded"] * 3


def wait_for(path: Path, seconds: float = 60.0) -> None:
    """Until ``path`` exists."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)
