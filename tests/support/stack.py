"""Snappy for a test: the command line as a subprocess, and a whole stack, as ``snappy up`` or in this process."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from snappy import serve
from snappy.bus.connection import Bus
from snappy.bus.roles import User
from snappy.cli import embedded
from snappy.config import Config, Nats, Secret
from snappy.frontend.api import Client
from snappy.repository.repo import Repository
from snappy.repository.store import Store

PROGRAM = str(Path(sys.executable).with_name("snappy"))
SECONDS = 90.0


@dataclass
class Shell:
    """A folder, an environment and a password file in which ``snappy`` is run as a user would."""

    folder: Path
    password: str = "correct horse"
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.password_file = secret(self.folder / "password", self.password)

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "SNAPPY_STATE_DIR": str(self.state_dir),
            **self.environ,
        }

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """``snappy`` with these arguments, in the background."""
        return subprocess.Popen(
            [PROGRAM, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: object) -> Done:
        """``snappy`` with these arguments, to its end."""
        return finish(self.start(*arguments))

    def found(self, place: str) -> None:
        """Make a repository there whose key costs nothing: each command would take half a second to open it."""
        files = LocalFileSystem(auto_mkdir=True)
        Repository.init(Store(files, str(self.folder / place)), self.password).close()

    def with_password(self, *arguments: object) -> Done:
        """The same, with the right password."""
        return self.run(*arguments, "--password-file", self.password_file)


@dataclass(frozen=True)
class Done:
    """What a command left."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """The one object that ``--json`` printed."""
        return json.loads(self.out)

    def expect(self, status: int) -> Done:
        """Itself, if the exit code is ``status``."""
        assert self.status == status, f"exit {self.status}\n{self.out}\n{self.err}"
        return self


def finish(process: subprocess.Popen[str]) -> Done:
    """Wait for a command's end; one that takes too long is killed and fails the test."""
    try:
        out, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"no end after {SECONDS} s\n{out}\n{err}") from None
    return Done(process.returncode, out, err)


def secret(path: Path, text: str) -> Path:
    """A file for its owner alone."""
    path.touch(mode=0o600)
    path.write_text(text)
    return path


# ---- snappy up -------------------------------------------------------------------------------------------------------


class Up:
    """A running ``snappy up``. Commands of ``shell`` find it by a configuration that names its URL."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.folder, self.process = folder, process

    @property
    def _users(self) -> Path:
        return self.folder / "state" / "nats"

    def way(self, user: str) -> Nats:
        """How ``user`` reaches the server."""
        port = json.loads((self._users / "broker.json").read_bytes())["port"]
        return Nats(
            url=f"nats://127.0.0.1:{port}", user=user, password=Secret(file=str(self._users / f"{user}.password"))
        )

    def shell(self, folder: Path, user: str) -> Shell:
        way = self.way(user)
        assert way.password is not None
        place = folder / "client.toml"
        place.write_text(f'[nats]\nurl = "{way.url}"\nuser = "{user}"\npassword = {{ file = "{way.password.file}" }}\n')
        return Shell(folder, environ={"SNAPPY_CONFIG": str(place)})

    @asynccontextmanager
    async def client(self, user: str) -> AsyncIterator[Client]:
        bus = await Bus.connect(self.way(user), name=f"test-{user}")
        try:
            yield Client(bus)
        finally:
            await bus.drain()

    async def wait_ready(self, services: Sequence[str]) -> None:
        """Until the core has heard of all ``services``."""
        deadline = monotonic() + SECONDS
        while not (self._users / "broker.json").exists():
            self._look(deadline)
            await asyncio.sleep(0.1)
        async with self.client(embedded.USER) as client:
            while set(services) - await _alive(client):
                self._look(deadline)
                await asyncio.sleep(0.1)

    def _look(self, deadline: float) -> None:
        log = (self.folder / "up.log").read_text()
        assert self.process.poll() is None, log
        assert monotonic() < deadline, log


async def _alive(client: Client) -> set[str]:
    try:
        return {beat.service for beat in await client.services()}
    except Exception:  # it is just starting
        return set()


@contextmanager
def snappy_up(folder: Path, configuration: str, services: Sequence[str], *arguments: str) -> Iterator[Up]:
    """``snappy up`` with that ``snappy.toml``, in ``folder``, with an embedded server, once ``services`` are alive."""
    (folder / "snappy.toml").write_text(f'state_dir = "{folder / "state"}"\n{configuration}')
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    with (folder / "up.log").open("w") as log:
        process = subprocess.Popen(
            [PROGRAM, "up", *arguments], cwd=folder, env=environ, stdout=log, stderr=log, text=True
        )
    try:
        up = Up(folder, process)
        asyncio.run(up.wait_ready(services))
        yield up
    finally:
        process.terminate()
        process.wait(SECONDS)


SITE_AND_VAULT = """
[source.site]
keys.default = {{ file = "{folder}/password" }}
[source.site.allow.alice]
kinds = ["*"]
plugins = ["files"]
targets = ["vault"]
read = ["{folder}/data"]
[target.vault]
url = "{folder}/vault"
"""


def site_and_vault(folder: Path) -> str:
    """The configuration of a source service that may back up ``folder/data`` for alice, and of a target."""
    return SITE_AND_VAULT.format(folder=folder)


@contextmanager
def site_up(folder: Path, *arguments: str) -> Iterator[Up]:
    """``snappy up`` with them; ``folder`` needs what :func:`site_folder` makes."""
    with snappy_up(folder, site_and_vault(folder), ["site", "vault"], *arguments) as up:
        yield up


def site_folder(folder: Path) -> Path:
    """``folder``, with something to back up and the repository's password."""
    (folder / "data").mkdir()
    (folder / "data" / "file").write_text("content")
    secret(folder / "password", "right")
    return folder


# ---- in this process -------------------------------------------------------------------------------------------------


class Inside:
    """A stack in this process, on a private server, under the roles' real permissions. Roles are named as
    ``core`` or ``source site``, and can be stopped and started again."""

    def __init__(self, server: embedded.Server, group: asyncio.TaskGroup) -> None:
        self.server, self._group = server, group
        self._running: dict[str, asyncio.Task[None]] = {}

    @property
    def host(self) -> serve.Host:
        return self.server.host

    async def start(self, name: str) -> None:
        """Run a role, and wait until it serves."""
        role = self._role(name)
        self.host.ready[role] = asyncio.Event()
        self._running[name] = self._group.create_task(serve.run(self.host, [role]))
        await serve.wait_ready(self.host, [role])

    async def stop(self, name: str) -> None:
        """End a role as SIGTERM would."""
        task = self._running.pop(name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def stop_all(self) -> None:
        """The services first."""
        for name in reversed(list(self._running)):
            await self.stop(name)

    def _role(self, name: str) -> serve.Role:
        return next(role for role in serve.roles_of(self.host.config) if str(role) == name)

    @asynccontextmanager
    async def bus(self, user: str) -> AsyncIterator[Bus]:
        bus = await Bus.connect(self.server.broker.nats(user), name=f"test-{user}", prefix=self.host.config.prefix)
        try:
            yield bus
        finally:
            await bus.drain()

    @asynccontextmanager
    async def client(self, user: str) -> AsyncIterator[Client]:
        async with self.bus(user) as bus:
            yield Client(bus)


@asynccontextmanager
async def in_process(
    settings: Config,
    submitters: Sequence[str] = (),
    passwords: Callable[[str], str] | None = None,
    observers: Sequence[str] = (),
    elsewhere: Sequence[str] = (),
) -> AsyncIterator[Inside]:
    """Core, audit and the services of ``settings``, which needs a ``state_dir``; ``submitters`` and
    ``observers`` are let in too. ``passwords`` gives the repository's password of a key, where the settings do not.
    Roles that are named in ``elsewhere`` are not started: others speak for them.
    """
    users = {user.name: user for user in embedded.users_of(settings)}
    users |= {name: User(name, "submitter") for name in submitters}
    users |= {name: User(name, "observer") for name in observers}
    async with embedded.server(settings, list(users.values())) as opened, asyncio.TaskGroup() as group:
        opened.host.passwords = passwords
        inside = Inside(opened, group)
        try:
            for role in sorted(serve.roles_of(opened.host.config), key=lambda role: role.kind == "source"):
                if str(role) not in elsewhere:
                    await inside.start(str(role))
            yield inside
        finally:
            await inside.stop_all()
