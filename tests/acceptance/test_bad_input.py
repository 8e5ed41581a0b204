"""Bad input: an event with a code, a sentence and a hint; the command line's exit code; and services that live on."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from snappy.jobs.messages import CloudEvent
from snappy.jobs.states import FINAL
from tests.support.stack import Shell, Up, secret, site_folder, snappy_up
from tests.support.weed import weed_server

CONFIGURATION = """
[source.site]
keys.default = {{ file = "{folder}/password" }}
keys.wrong = {{ file = "{folder}/wrong" }}
keys.lost = {{ file = "{folder}/there-is-no-such-file" }}
[source.site.allow.alice]
kinds = ["*"]
plugins = ["*"]
targets = ["vault", "empty", "ghost"]
read = ["{folder}/data", "s3://somewhere"]
restore_to = ["{folder}/back"]
[source.site.allow.bob]
kinds = ["restore"]
[target.vault]
url = "{folder}/vault"
[target.empty]
url = "{folder}/empty"
"""
SERVICES = ("site", "vault", "empty")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = site_folder(tmp_path_factory.mktemp("site"))
    secret(folder / "wrong", "wrong")
    return folder


@pytest.fixture(scope="module")
def up(folder: Path) -> Iterator[Up]:
    with snappy_up(folder, CONFIGURATION.format(folder=folder), SERVICES) as running:
        asyncio.run(ends(running, "backup", backup(folder, init=True)))
        yield running
        event = asyncio.run(ends(running, "backup", backup(folder)))
        assert event.data.state == "succeeded", "a service did not survive the bad input"
        assert running.process.poll() is None
        assert not (folder / "empty").exists() or not any((folder / "empty").iterdir()), "a half-made repository"


def backup(folder: Path, **changes: Any) -> dict[str, Any]:
    options = {"paths": [str(folder / "data")]}
    return {"source": "site", "target": "vault", "options": options, **changes}


@asynccontextmanager
async def listening(up: Up, user: str) -> AsyncIterator[tuple[Any, asyncio.Queue[CloudEvent]]]:
    """A client, and the events that end jobs of ``user``."""
    heard: asyncio.Queue[CloudEvent] = asyncio.Queue()

    async def hear(message: Any) -> None:
        event = msgspec.json.decode(message.data, type=CloudEvent)
        if event.submitter == user and event.data.state in FINAL:
            heard.put_nowait(event)

    async with up.client(user) as client:
        await client.bus.listen("snappy.event.>", "", hear)
        yield client, heard


async def ends(up: Up, kind: str, command: dict[str, Any] | bytes, user: str = "alice") -> CloudEvent:
    """Publish a command as any NATS client would, and wait for the event that ends its job."""
    body = command if isinstance(command, bytes) else json.dumps({"request": secrets.token_hex(8), **command}).encode()
    async with listening(up, user) as (client, heard), asyncio.timeout(90):
        await client.bus.store(f"snappy.cmd.{kind}.{user}", body)
        event = await heard.get()
        if not isinstance(command, bytes):
            assert event.request == json.loads(body)["request"]
        return event


class Bad(NamedTuple):
    """What is asked, and what it ends as."""

    kind: str
    changes: dict[str, Any]
    event: str
    code: str
    says: str


COMMANDS = {
    "unknown field": Bad("backup", {"sauce": "site"}, "rejected", "invalid-command", "sauce"),
    "wrong type": Bad("backup", {"tags": "one"}, "rejected", "invalid-command", "$.tags"),
    "bad name": Bad("backup", {"target": "../vault"}, "rejected", "invalid-command", "$.target"),
    "unknown source": Bad("backup", {"source": "sight"}, "rejected", "unknown-service", "sight"),
    "unknown target": Bad("backup", {"target": "ghost"}, "rejected", "unknown-service", "ghost"),
    "unknown key": Bad("backup", {"key": "other"}, "rejected", "unknown-key", "other"),
    "unknown plug-in": Bad("backup", {"plugin": "tape"}, "rejected", "unknown-plugin", "tape"),
    "unknown option": Bad("backup", {"options": {"path": []}}, "rejected", "bad-options", "path"),
    "option of a wrong type": Bad("backup", {"options": {"paths": "/srv"}}, "rejected", "bad-options", "$.paths"),
    "relative path": Bad("backup", {"options": {"paths": ["data"]}}, "rejected", "bad-options", "data"),
    "target not allowed": Bad("backup", {"target": "other"}, "rejected", "unknown-service", "other"),
    "path not allowed": Bad("backup", {"options": {"paths": ["/etc"]}}, "rejected", "denied", "/etc"),
    "place not allowed": Bad("restore", {"options": {"to": "/srv"}}, "rejected", "denied", "/srv"),
    "missing path": Bad("backup", {"options": {"paths": ["{folder}/data/no"]}}, "failed", "source-missing", "data/no"),
    "wrong password": Bad("backup", {"key": "wrong"}, "failed", "wrong-password", ""),
    "lost password": Bad("backup", {"key": "lost"}, "failed", "usage", "'lost'"),
    "no repository": Bad("backup", {"target": "empty"}, "failed", "not-a-repository", ""),
    "nothing to restore from": Bad(
        "restore", {"target": "empty", "options": {"to": "{folder}/back"}}, "failed", "not-a-repository", ""
    ),
    "missing path and a new repository": Bad(
        "backup",
        {"target": "empty", "init": True, "options": {"paths": ["{folder}/data/no"]}},
        "failed",
        "source-missing",
        "",
    ),
    "unknown snapshot": Bad(
        "restore",
        {"snapshot": "0123abcd", "options": {"to": "{folder}/back"}},
        "failed",
        "snapshot-not-found",
        "0123abcd",
    ),
    "no snapshot id": Bad(
        "restore", {"snapshot": "newest", "options": {"to": "{folder}/back"}}, "failed", "snapshot-not-found", "newest"
    ),
    "a repository that exists": Bad("init", {}, "failed", "repository-exists", ""),
    "unknown parent": Bad("backup", {"parent": "0123abcd"}, "failed", "snapshot-not-found", "0123abcd"),
}


def filled(value: Any, folder: Path) -> Any:
    return json.loads(json.dumps(value).replace("{folder}", str(folder)))


@pytest.mark.parametrize("name", COMMANDS)
async def test_a_bad_command_ends_as_an_event(up: Up, folder: Path, name: str) -> None:
    bad = COMMANDS[name]
    command = backup(folder) if bad.kind == "backup" else {"source": "site", "target": "vault"}
    event = await ends(up, bad.kind, {**command, **filled(bad.changes, folder)})
    assert event.type == f"io.snappy.{bad.kind}.{bad.event}"
    assert event.data.error is not None
    assert event.data.error.code == bad.code, event.data.error
    assert bad.says in event.data.error.message
    assert event.data.error.message.rstrip(".").count("\n") == 0


@pytest.mark.parametrize(
    "body", [b"", b"{", b"null", b"[1]", b'"text"', b"\xff\xfe", b'{"source": 3}', b'{"v": 99}', b"x" * 1000]
)
async def test_what_is_no_command_ends_as_an_event(up: Up, body: bytes) -> None:
    event = await ends(up, "backup", body)
    assert event.type == "io.snappy.backup.rejected"
    assert event.data.error is not None
    assert event.data.error.code == "invalid-command"
    assert event.data.error.hint


async def test_an_unknown_kind_ends_as_an_event(up: Up) -> None:
    event = await ends(up, "explode", {"source": "site", "target": "vault"})
    assert event.data.state == "rejected"
    assert event.data.error is not None
    assert "explode" in event.data.error.message


async def test_a_submitter_may_ask_only_what_the_rules_say(up: Up, folder: Path) -> None:
    event = await ends(up, "backup", backup(folder), user="bob")
    assert event.data.state == "rejected"
    assert event.data.error is not None
    assert (event.data.error.code, event.data.error.hint != "") == ("denied", True)


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (["backup", "/etc", "--to", "vault"], 4, "denied"),
        (["backup", "{folder}/data", "--to", "nowhere"], 4, "unknown-service"),
        (["backup", "{folder}/data", "--to", "vault", "--plugin", "tape"], 4, "unknown-plugin"),
        (["backup", "{folder}/data", "--to", "vault", "--option", "sauce=1"], 4, "bad-options"),
        (["backup", "{folder}/data/no", "--to", "vault"], 5, "source-missing"),
        (["backup", "{folder}/data", "--to", "vault", "--key", "wrong"], 12, "wrong-password"),
        (["backup", "{folder}/data", "--to", "empty"], 10, "not-a-repository"),
        (["init", "--to", "vault"], 10, "repository-exists"),
        (["restore", "0123abcd", "--from", "vault", "--to", "{folder}/back"], 5, "snapshot-not-found"),
        (["snapshots", "--from", "empty"], 10, "not-a-repository"),
        (["snapshots", "--from", "vault", "--key", "wrong"], 12, "wrong-password"),
        (["jobs", "show", "no-such-job"], 5, "job-not-found"),
        (["backup", "{folder}/data", "--to", "{folder}/repo"], 2, "usage"),
        (["backup", "{folder}/data", "--to", "s3://bucket"], 2, "usage"),
        (["backup", "{folder}/data", "--to", "vault", "--password-file", "/dev/null"], 2, "usage"),
        (["backup", "data", "--to", "vault"], 2, "usage"),
        (["backup", "--to", "vault"], 2, "usage"),
    ],
)
def test_the_command_line_says_it_and_ends_so(
    up: Up, folder: Path, tmp_path: Path, arguments: list[str], status: int, code: str
) -> None:
    done = up.shell(tmp_path, "alice").run(*filled(arguments, folder), "--json").expect(status)
    printed = done.json()
    assert printed["error"]["code"] == code
    assert "Traceback" not in done.err
    assert done.err.startswith("snappy: ")


def test_a_place_is_refused_with_the_hint_to_name_a_target(up: Up, folder: Path, tmp_path: Path) -> None:
    done = up.shell(tmp_path, "alice").run("backup", folder / "data", "--to", "/srv/repo").expect(2)
    assert "hint: name a target" in done.err


def test_what_is_allowed_works_through_the_server(up: Up, folder: Path, tmp_path: Path) -> None:
    shell = up.shell(tmp_path, "alice")
    done = shell.run("backup", folder / "data", "--to", "vault", "--request", "mine-1", "--json").expect(0).json()
    again = shell.run("backup", folder / "data", "--to", "vault", "--request", "mine-1", "--json").expect(0).json()
    assert done["id"] == again["id"]
    shell.run("restore", "latest", "--from", "vault", "--to", folder / "back").expect(0)
    restored = folder / "back" / str(folder / "data" / "file").lstrip("/")
    assert restored.read_text() == "content"
    assert len(shell.run("snapshots", "--from", "vault", "--json").expect(0).json()) >= 2


def test_a_target_name_needs_a_server(tmp_path: Path) -> None:
    done = Shell(tmp_path).with_password("backup", tmp_path, "--to", "vault").expect(2)
    assert "snappy up" in done.err


def test_with_no_server_bad_input_is_told_alike(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    missing = shell.with_password("backup", "/no/such/path", "--to", "./repo", "--init", "--json").expect(5)
    assert missing.json()["error"]["code"] == "source-missing"
    assert not (tmp_path / "repo").exists()


@pytest.mark.s3
def test_a_bucket_that_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("content")
    with weed_server(tmp_path) as server:
        environ = {
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
            "AWS_ENDPOINT_URL": server.endpoint,
        }
        shell = Shell(tmp_path, environ=environ)
        done = shell.with_password("backup", "tree", "--to", "s3://no-such-bucket/x", "--json").expect(10)
    assert "bucket of the target does not exist" in done.json()["error"]["message"]
