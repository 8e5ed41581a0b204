"""deploy/ as an operator would use it: prepared secrets, the server's own file, and a process for each role."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from snappy import config
from snappy.cli.main import main
from tests.support.natsserver import NatsServer, nats_server
from tests.support.roles import MACHINE

DEPLOY = Path(__file__).parents[2] / "deploy"
SNAPPY = Path(sys.executable).with_name("snappy")
ROLES = {
    "core": ["core", "run"],
    "audit": ["audit", "run"],
    "vault": ["target", "run", "vault"],
    "site1": ["source", "run", "site1"],
}
OWN = {
    "core": {"password", "signing.key", "signing.key.pub", "snappy.toml"},
    "audit": {"password", "snappy.toml"},
    "site1": {"password", "repository.password", "snappy.toml"},
    "vault": {"password", "core.public", "snappy.toml"},
    "alice": {"password", "snappy.toml"},
    "watcher": {"password"},
    "nats": {"nats.conf", "secrets.conf"},
}


def prepare(folder: Path, *arguments: str) -> None:
    environment = {**os.environ, "SNAPPY": str(SNAPPY)}
    command = [str(DEPLOY / "prepare.sh"), str(folder), *arguments]
    subprocess.run(command, check=True, env=environment, capture_output=True)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    prepare(tmp_path / "etc")
    return tmp_path / "etc"


@pytest.fixture
def server(prepared: Path) -> Iterator[NatsServer]:
    text = (prepared / "nats" / "nats.conf").read_text()
    for theirs, ours in MACHINE.items():
        text = text.replace(theirs, ours.format(folder=prepared))
    with nats_server(prepared / "nats", text) as running:
        yield running


def test_each_role_has_its_own_secrets_and_no_others(prepared: Path) -> None:
    assert {path.name: {each.name for each in path.iterdir()} for path in prepared.iterdir()} == OWN
    for path in prepared.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    passwords = [(prepared / name / "password").read_text() for name in OWN if name != "nats"]
    assert len(set(passwords)) == len(passwords)


def test_preparing_again_changes_nothing(prepared: Path) -> None:
    before = {path: path.read_bytes() for path in prepared.rglob("*") if path.is_file()}
    prepare(prepared)
    assert {path: path.read_bytes() for path in prepared.rglob("*") if path.is_file()} == before


def test_prepared_for_another_place(tmp_path: Path) -> None:
    prepare(tmp_path / "etc", "/etc/snappy", "nats://nats:4222")
    loaded = config.load(str(tmp_path / "etc" / "core" / "snappy.toml"), {})
    assert loaded.nats.url == "nats://nats:4222"
    assert loaded.nats.password == config.Secret(file="/etc/snappy/core/password")


@pytest.mark.parametrize("path", sorted((DEPLOY / "examples").iterdir()), ids=lambda path: path.stem)
def test_an_example_holds_one_role(path: Path) -> None:
    loaded = config.load(str(path), {})
    sections = [loaded.core, loaded.audit, *loaded.source.values(), *loaded.target.values()]
    assert sum(section is not None for section in sections) == (0 if path.stem == "alice" else 1)
    assert loaded.nats.user == path.stem


STARTERS = [DEPLOY / "compose.yaml", *sorted((DEPLOY / "systemd").iterdir())]


@pytest.mark.parametrize("path", STARTERS, ids=lambda path: path.name)
def test_what_is_started_is_a_command(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each role's words, as compose and systemd give them."""
    text = re.sub(r'[\[\]",]', "", path.read_text()).replace("%i", "site1")
    lines = re.findall(r"--config \S+ ((?:core|audit|source|target) run.*)", text)
    assert lines or "nats-server -c" in text
    for line in lines:
        with pytest.raises(SystemExit) as ended:
            main([*line.split(), "--help"])
        assert ended.value.code == 0
    assert capsys.readouterr().out.count("usage: snappy") == len(lines)


@asynccontextmanager
async def running(prepared: Path, role: str, environment: dict[str, str]) -> AsyncIterator[None]:
    """The role in a process of its own, from the moment it is ready."""
    command = ["--config", str(prepared / role / "snappy.toml"), *ROLES[role]]
    process = await asyncio.create_subprocess_exec(SNAPPY, *command, env=environment, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = []
    async with asyncio.timeout(60):
        while line := await process.stderr.readline():
            said.append(line.decode())
            if '"event": "ready"' in said[-1]:
                break
        else:
            raise AssertionError("".join(said))
    draining = asyncio.create_task(process.stderr.read())
    try:
        yield
    finally:
        process.terminate()
        await process.wait()
        await draining


async def ask(prepared: Path, environment: dict[str, str], *words: str) -> tuple[int, str]:
    command = ["--config", str(prepared / "alice" / "snappy.toml"), "--json", *words]
    process = await asyncio.create_subprocess_exec(
        SNAPPY, *command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode() + err.decode()


async def test_a_backup_under_the_deployed_permissions(prepared: Path, server: NatsServer, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "file").write_bytes(os.urandom(100_000))
    moved = {
        "nats://127.0.0.1:4222": server.url,
        "/srv/data": str(data),
        "/var/lib/": f"{tmp_path}/",
    }
    for path in prepared.glob("*/snappy.toml"):
        text = path.read_text()
        for theirs, ours in moved.items():
            text = text.replace(theirs, ours)
        path.write_text(text)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    async with AsyncExitStack() as stack:
        for role in ROLES:
            await stack.enter_async_context(running(prepared, role, environment))
        place = ("--source", "site1", "--to", "vault")
        status, said = await ask(prepared, environment, "init", *place)
        assert status == 0, said
        status, said = await ask(prepared, environment, "backup", str(data), *place)
        assert status == 0, said
        status, said = await ask(prepared, environment, "backup", "/etc", *place)
        assert status == 4, said
        status, said = await ask(prepared, environment, "jobs", "list")
        assert status == 0, said
        status, said = await ask(prepared, environment, "audit", "query")
        assert status == 0, said
    assert (tmp_path / "snappy-vault" / "config").exists()
    assert len(list((tmp_path / "snappy-vault" / "snapshots").iterdir())) == 1
    assert not [line for line in server.lines if "Violation" in line]
