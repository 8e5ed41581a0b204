"""Events as a user has them: live, and kept until they are read, on a server and without one."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.stack import Done, Shell, finish, site_up


def told(done: Done) -> list[Any]:
    return [(event["type"], event["subject"]) for event in map(json.loads, done.expect(0).out.splitlines())]


def test_events_from_subscribe_to_unsubscribe(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with site_up(folder) as up:
        shell = up.shell(tmp_path_factory.mktemp("alice"), "alice")
        nobody = shell.run("events", "read", "--json").expect(5)
        assert nobody.json()["error"]["code"] == "subscription-not-found"
        assert "snappy events subscribe" in nobody.err

        made = shell.run("events", "subscribe", "--kind", "init", "--json").expect(0).json()
        assert (made["filter"], made["durable"]) == ("snappy.event.init.*.*", "observer-alice")
        refused = shell.run("events", "subscribe", "--kind", "backup").expect(4)
        assert "subscribed to other events" in refused.err
        assert "snappy events unsubscribe" in refused.err

        job = shell.run("init", "--to", "vault", "--json").expect(0).json()["id"]
        assert shell.run("events", "show").expect(0).out.split()[-4:] == [
            *("snappy.event.init.*.*", "SNAPPY_EVENTS", "observer-alice", "3")
        ]
        kinds = ["accepted", "started", "succeeded"]
        expected = [(f"io.snappy.init.{kind}", job) for kind in kinds]
        assert told(shell.run("events", "read", "--count", "1", "--json")) == expected[:1]
        line = shell.run("events", "read").expect(0).out.splitlines()
        assert [each.split()[2:5] for each in line] == [[f"init.{kind}", job, "alice"] for kind in kinds[1:]]
        assert shell.run("events", "read").expect(0).out == ""

        assert "is gone" in shell.run("events", "unsubscribe").expect(0).out
        assert "not subscribed" in shell.run("events", "show").expect(5).err

        followed_while_a_backup_runs(shell, folder)


def followed_while_a_backup_runs(shell: Shell, folder: Path) -> None:
    shell.run("events", "subscribe", "--event", "succeeded").expect(0)
    following = shell.start("events", "read", "--follow", "--json")
    watching = shell.start("events", "watch", "--kind", "backup", "--count", "3", "--json")
    assert watching.stderr is not None
    assert "listening" in watching.stderr.readline()
    backup = shell.run("backup", folder / "data", "--to", "vault", "--source", "site", "--json").expect(0).json()["id"]
    kinds = ["accepted", "started", "succeeded"]
    assert told(finish(watching)) == [(f"io.snappy.backup.{kind}", backup) for kind in kinds]
    assert following.stdout is not None
    assert json.loads(following.stdout.readline())["subject"] == backup
    following.send_signal(signal.SIGTERM)
    assert "what is unread is kept" in finish(following).expect(130).err


def test_events_of_commands_that_came_and_went(folder: Path) -> None:
    shell = Shell(folder)
    shell.run("events", "subscribe", "--kind", "backup", "--event", "succeeded").expect(0)
    shell.with_password("backup", "data", "--to", "./vault", "--init").expect(0)
    done = shell.run("events", "read", "--json")
    assert [kind for kind, _ in told(done)] == ["io.snappy.backup.succeeded"]
