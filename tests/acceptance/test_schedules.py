"""Schedules as a user has them: the command line, under the roles' permissions, and a backup that happens."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from snappy.bus.connection import Bus
from snappy.errors import BusDenied, BusError
from tests.support.stack import Shell, site_up


def test_a_schedule_from_add_to_remove(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with site_up(folder) as up:
        shell = up.shell(tmp_path_factory.mktemp("alice"), "alice")
        job = ["--", "backup", folder / "data", "--to", "vault", "--source", "site", "--init"]
        added = shell.run("schedule", "add", "often", "--every", "1s", "--json", *job).expect(0).json()
        assert (added["owner"], added["every"], added["command"]["target"]) == ("alice", 1, "vault")
        first = until_over(shell, "often")
        assert (first["kind"], first["submitter"], first["state"]) == ("backup", "alice", "succeeded"), first
        assert first["request"].startswith("often-")
        assert "is paused" in shell.run("schedule", "pause", "often").expect(0).out
        listed = shell.run("schedule", "list").expect(0).out
        assert listed.splitlines()[1].split()[:5] == ["often", "backup", "paused", "every", "1.0"]
        assert "next 2" in shell.run("schedule", "resume", "often").expect(0).out
        assert shell.run("schedule", "run-now", "often", "--json").expect(0).json()["kind"] == "backup"
        assert shell.run("schedule", "show", "often").expect(0).out.startswith('{\n  "name": "often"')
        shell.run("schedule", "remove", "often").expect(0)
        assert shell.run("schedule", "list").expect(0).out == "no schedules\n"
        assert "no schedule" in shell.run("schedule", "show", "often").expect(5).err
        refused = shell.run("schedule", "add", "odd", "--cron", "0 25 * * *", *job).expect(4)
        assert "'25' is no hour" in refused.err
        asyncio.run(nobody_else_may_fire(up.way("alice")))


def until_over(shell: Shell, name: str) -> dict[str, object]:
    """The first job of a schedule, at its end."""
    while not (found := shell.run("jobs", "list", "--json").expect(0).json()):
        assert shell.run("schedule", "show", name).status == 0
    watched: dict[str, object] = shell.run("jobs", "watch", found[-1]["id"], "--json").expect(0).json()
    return watched


async def nobody_else_may_fire(nats: object) -> None:
    """A submitter may publish neither a schedule nor that one is due, nor a command that is a schedule."""
    bus = await Bus.connect(nats, name="mallory", user="alice")  # type: ignore[arg-type]
    headers = {"Nats-Schedule": "@every 1s", "Nats-Schedule-Target": "snappy.due.often"}
    try:
        for subject in ("snappy.schedule.often", "snappy.due.often"):
            with pytest.raises(BusDenied):
                await bus.store(subject, b"{}", headers=headers)
        with pytest.raises(BusError):
            await bus.store("snappy.cmd.backup.alice", b"{}", headers=headers)
    finally:
        await bus.drain()


def test_a_place_cannot_be_scheduled_without_a_server(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    command = ["schedule", "add", "n", "--every", "6h", "--", "backup", "/etc", "--to", "./vault"]
    assert "outlives this command" in shell.run(*command).expect(2).err
