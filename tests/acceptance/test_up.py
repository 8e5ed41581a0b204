"""``snappy up``: all roles of a configuration, in one process or in one each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stack import Shell, Up, site_and_vault, site_up


@pytest.fixture(params=[[], ["--split"]], ids=["one process", "split"])
def up(folder: Path, request: pytest.FixtureRequest) -> Iterator[Up]:
    with site_up(folder, *request.param) as running:
        yield running


def children(process: int) -> dict[int, str]:
    """The processes below ``process``, with their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, ValueError, IndexError):
            continue
        if parent == process:
            found |= {int(entry.name): command} | children(int(entry.name))
    return found


def test_jobs_are_done(up: Up, folder: Path, tmp_path: Path) -> None:
    shell = up.shell(tmp_path, "alice")
    shell.run("init", "--to", "vault").expect(0)
    shell.run("backup", folder / "data", "--to", "vault").expect(0)
    assert [row["service"] for row in shell.run("services", "--json").expect(0).json()] == ["site", "vault"]


def test_commands_of_the_owner_find_the_running_server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """By the state folder: a target's name goes to it, and a path joins it with a source and a target of its own."""
    shell = Shell(tmp_path_factory.mktemp("owner"), environ={"SNAPPY_STATE_DIR": str(folder / "state")})
    with site_up(folder):
        shell.run("backup", folder / "data", "--to", "vault", "--source", "site", "--init").expect(0)
        shell.with_password("backup", folder / "data", "--to", "./own", "--init").expect(0)
        jobs = shell.run("jobs", "list", "--json").expect(0).json()
        assert [job["command"]["target"] for job in jobs] == ["place-1", "vault"]
        refused = shell.run("backup", folder / "data", "--to", "vault", "--key", "other", "--source", "site").expect(4)
        assert "its keys are: default" in refused.err
        elsewhere = shell.run("backup", "--stdin", "--to", "vault", "--source", "site").expect(2)
        assert "without a server alone" in elsewhere.err


def test_the_plug_ins_of_a_service_are_asked_on_the_bus(folder: Path, tmp_path: Path) -> None:
    with site_up(folder) as up:
        shell = up.shell(tmp_path, "alice")
        assert {"files", "sqlite"} <= set(shell.run("plugins", "list", "--source", "site", "--json").expect(0).json())
        assert "absolute paths of database files" in shell.run("plugins", "show", "sqlite", "--source", "site").out
        assert "it has: block, " in shell.run("plugins", "show", "tape", "--source", "site").expect(4).err
        assert "snappy services" in shell.run("plugins", "list", "--source", "nobody").expect(4).err


PASSING = """
import asyncio, sys
from snappy.bus.broker import Broker
from snappy.cli.embedded import OWN_USERS
async def main():
    broker = await Broker.start(sys.argv[1], OWN_USERS)
    print(flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await broker.stop()
asyncio.run(main())
"""
"""A command that owns the server until its standard input ends."""


def test_up_waits_for_the_end_of_a_command_that_owns_the_server(folder: Path) -> None:
    """It must not stand on a server that a passing command takes away with it."""
    (folder / "snappy.toml").write_text(site_and_vault(folder))
    shell = Shell(folder)
    owner = [sys.executable, "-c", PASSING, str(shell.state_dir)]
    with subprocess.Popen(owner, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as passing:
        assert passing.stdin is not None
        assert passing.stdout is not None
        assert passing.stdout.readline()
        up = shell.start("up")
        assert up.stderr is not None
        assert "waiting until that command ends" in up.stderr.readline()
        passing.stdin.close()
        assert up.stderr.readline().startswith("NATS listens at")
        assert any('"role": "source site", "event": "ready"' in line for line in up.stderr)
        up.terminate()
        up.communicate(timeout=30)
    assert (passing.returncode, up.returncode) == (0, 0)


def test_one_process_says_that_the_split_is_off(folder: Path) -> None:
    with site_up(folder):
        assert "--split" in (folder / "up.log").read_text()


def test_sigterm_ends_everything_cleanly(folder: Path) -> None:
    with site_up(folder, "--split") as up:
        below = children(up.process.pid)
        up.process.send_signal(signal.SIGTERM)
        assert up.process.wait(30) == 0, (folder / "up.log").read_text()
    assert gone(below, 5.0)


def test_a_killed_parent_takes_its_children_with_it(folder: Path) -> None:
    with site_up(folder, "--split") as up:
        below = children(up.process.pid)
        assert sum("snappy.cli.child" in command for command in below.values()) == 4
        up.process.kill()
        assert gone(below, 40.0)


def test_a_dead_child_ends_the_whole(folder: Path) -> None:
    with site_up(folder, "--split") as up:
        victim = next(pid for pid, command in children(up.process.pid).items() if "snappy.cli.child" in command)
        os.kill(victim, signal.SIGKILL)
        assert up.process.wait(60) == 1
        assert "ended with status -9" in (folder / "up.log").read_text()


def gone(processes: dict[int, str], seconds: float) -> bool:
    """Whether all of ``processes`` have ended within some seconds."""
    deadline = time.monotonic() + seconds
    while any(_runs(pid) for pid in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
