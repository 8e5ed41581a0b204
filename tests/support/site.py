"""A site as an operator would run it: nats-server under ``deploy/nats.conf``, and each role a process of its own with
a configuration, a password and an environment of its own, and a wire proxy between it and the server.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from snappy.bus.grants import SigningKey
from tests.support import raw_nats
from tests.support.roles import Deployment, deployed
from tests.support.wire_proxy import WireProxy, wire_proxy

ROLES = {"core": ["core", "run"], "audit": ["audit", "run"]}
ROLES |= {"vault": ["target", "run", "vault"], "site1": ["source", "run", "site1"]}
START_SECONDS = 60.0
FINAL = {"succeeded", "failed", "rejected", "cancelled"}


class Site:
    """Made by :func:`site`. ``repository_password`` is what the source alone knows."""

    def __init__(self, folder: Path, target: dict[str, Any], core: dict[str, Any] | None = None) -> None:
        self.folder, self.target, self.core = folder, target, core or {}
        self.direct = True
        """Whether objects may go past the server, and what stands before it."""
        self.rights = "rlw"
        self.repository_password = secrets.token_hex(32)
        self.key = SigningKey.generate()
        self.proxies: dict[str, WireProxy] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.server: Deployment

    def password(self, user: str) -> str:
        """Of a user of the bus."""
        return self.server.password_file(user).read_text()

    # ---- configuration -------------------------------------------------------------------------------------------

    def configure(self, user: str) -> Path:
        """Writes the folder of one role: its configuration, and the secrets that it names."""
        own = self.folder / user
        own.mkdir(mode=0o700)
        self._secret(own / "nats.password", self.password(user))
        section = getattr(self, f"_{user}_section")(own)
        settings = [
            f"state_dir = {_toml(own / 'state')}",
            f"[nats]\nurl = {_toml(self.proxies[user].url)}\nuser = {_toml(user)}",
            f"password = {{ file = {_toml(own / 'nats.password')} }}",
            section,
        ]
        (own / "snappy.toml").write_text("\n".join(settings) + "\n")
        return own / "snappy.toml"

    def _core_section(self, own: Path) -> str:
        self._secret(own / "signing.key", self.key.to_text())
        settings = {"hold_seconds": 6.0, **self.core}
        lines = [f"{name} = {_toml(value)}" for name, value in settings.items()]
        return "\n".join(["[core]", f"signing_key = {{ file = {_toml(own / 'signing.key')} }}", *lines])

    def _audit_section(self, own: Path) -> str:
        return f"[audit]\npath = {_toml(own / 'audit')}"

    def _vault_section(self, own: Path) -> str:
        self._secret(own / "core.public", self.key.public_text())
        options = "".join(f"{name} = {_toml(value)}\n" for name, value in self.target.items() if name != "url")
        return (
            f"[target.vault]\nurl = {_toml(self.target['url'])}\ndirect = {_toml(self.direct)}\n"
            f"rights = {_toml(self.rights)}\n"
            f"core_public_key = {{ file = {_toml(own / 'core.public')} }}\n"
            f"[target.vault.storage_options]\n{options}"
        )

    def _site1_section(self, own: Path) -> str:
        self._secret(own / "repository.password", self.repository_password)
        return (
            f"[source.site1]\nkeys.default = {{ file = {_toml(own / 'repository.password')} }}\n"
            f'[source.site1.allow.alice]\nkinds = ["*"]\nplugins = ["files"]\ntargets = ["vault"]\n'
            f"read = [{_toml(self.folder / 'data')}]\nrestore_to = [{_toml(self.folder / 'back')}]"
        )

    def _secret(self, path: Path, text: str) -> None:
        path.touch(mode=0o600)
        path.write_text(text)

    # ---- processes -----------------------------------------------------------------------------------------------

    def start(self, user: str, program: list[str] | None = None) -> None:
        """Start one role with the least of an environment; ``program`` stands in for ``snappy``."""
        configuration = self.configure(user)
        command = program or [str(Path(sys.executable).with_name("snappy"))]
        with (configuration.parent / "log").open("wb") as log:
            self.processes[user] = subprocess.Popen(
                [*command, *ROLES[user], "--config", str(configuration)],
                env={"PATH": os.environ["PATH"], "HOME": str(configuration.parent), "PYTHONPROFILEIMPORTTIME": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def log(self, user: str) -> str:
        """What a role wrote, the names of all modules that it imported among it."""
        return (self.folder / user / "log").read_text(errors="replace")

    def imported(self, user: str) -> set[str]:
        """The names of the modules that the role's process has loaded so far, but for a plug-in's own that was found
        by name: Python lists only what an import statement brings."""
        lines = re.findall(r"^import time:.*\| +([\w.]+)$", self.log(user), flags=re.MULTILINE)
        return set(lines)

    async def wait_ready(self) -> None:
        """Until the core lists the source service and the target service."""
        deadline = monotonic() + START_SECONDS
        url = self.server.url.split(",")[0]  # any of a cluster
        async with raw_nats.connect(url, "alice", self.password("alice")) as client:
            while {"site1", "vault"} - await self._services(client):
                for user, process in self.processes.items():
                    assert process.poll() is None, self.log(user)[-4000:]
                assert monotonic() < deadline, "\n".join(self.log(user)[-2000:] for user in self.processes)
                await asyncio.sleep(0.2)

    async def _services(self, client: raw_nats.RawClient) -> set[str]:
        try:
            answer = await client.request("snappy.api.services.list.alice", b"{}", timeout=5)
        except (raw_nats.ServerError, TimeoutError):
            return set()
        return {service["service"] for service in json.loads(answer.body).get("services") or []}

    async def run(self, kind: str, **command: Any) -> dict[str, Any]:
        """Publish a command as alice, through a proxy of her own, and wait for the event that ends the job."""
        body = {"source": "site1", "target": "vault", "request": secrets.token_hex(8), **command}
        async with raw_nats.connect(self.proxies["alice"].url, "alice", self.password("alice")) as client:
            events = await client.subscribe("snappy.event.>")
            await client.request(f"snappy.cmd.{kind}.alice", json.dumps(body).encode())
            while True:
                event = await raw_nats.next_json(events, timeout=90)
                if event.get("request") == body["request"] and str(event["type"]).rpartition(".")[2] in FINAL:
                    return event


def _toml(value: object) -> str:
    return json.dumps(value if isinstance(value, bool | int | float | list) else str(value))


@contextmanager
def site(
    folder: Path,
    target: dict[str, Any],
    source_program: list[str] | None = None,
    core: dict[str, Any] | None = None,
    *,
    direct: bool = True,
) -> Iterator[Site]:
    """A running site. ``target`` is its storage's ``url`` and options, ``core`` more of the core's settings; the jobs
    of alice may read ``folder/data`` and restore to ``folder/back``."""
    made = Site(folder, target, core)
    made.direct = direct
    with ExitStack() as stack:
        (folder / "nats").mkdir()
        made.server = stack.enter_context(deployed(folder / "nats"))
        for user in (*ROLES, "alice"):
            made.proxies[user] = stack.enter_context(wire_proxy(made.server.url))
        stack.callback(made.stop)
        for user in ROLES:
            made.start(user, source_program if user == "site1" else None)
        asyncio.run(made.wait_ready())
        yield made
