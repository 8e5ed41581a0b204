"""Snappy as it is measured: nats-server under ``deploy/nats.conf``; core, audit, target and source, each a process of
its own; and ``snappy backup`` or ``snappy restore``, which submits one job over the bus and follows it to its end.

The services stand from before the first run of a session to after its last. Their configuration holds what it must
(names, passwords, places) and is the default in everything else; ``settings`` are environment variables for the source
service that change that.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import snappy
from bench.meter import Command, Failed, Run, measure
from bench.sides import ELSEWHERE, HERE, Session, Side
from snappy.config import Core
from tests.support.mortal import die_with_parent
from tests.support.places import Place
from tests.support.roles import deployed
from tests.support.site import ROLES, Site

WAYS = DIRECT, FRAMES = ("direct", "frames")
"""How objects get to a target on the same host: the default, and all over NATS."""
SNAPPY = str(Path(sys.executable).with_name("snappy"))
CLIENT = "alice"


class BenchSite(Site):
    """A site without proxies, whose jobs may read and restore anywhere."""

    def __init__(self, folder: Path, place: Place, settings: Mapping[str, str]) -> None:
        super().__init__(folder, place.target, {"hold_seconds": Core().hold_seconds})
        self.settings = settings

    @property
    def services(self) -> dict[str, int]:
        """The process ids, by what they are."""
        pids = {ROLES[user][0]: process.pid for user, process in self.processes.items()}
        return {**pids, "nats-server": self.server.server.pid}

    def start(self, user: str, program: list[str] | None = None) -> None:
        configuration = self.configure(user)
        chosen = self.settings if user == "site1" else {}
        with (configuration.parent / "log").open("wb") as log:
            self.processes[user] = subprocess.Popen(
                [SNAPPY, *ROLES[user], "--config", str(configuration)],
                env={**self.environ(user), **chosen},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )

    def environ(self, user: str) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder / user)}

    def _site1_section(self, own: Path) -> str:
        """The same, with a longer list of what may be read and where it may be restored to."""
        text = super()._site1_section(own)
        return "\n".join(line for line in text.splitlines() if not line.startswith(("read", "restore_to"))) + (
            '\nread = ["/"]\nrestore_to = ["/"]'
        )

    def _alice_section(self, _own: Path) -> str:
        """Of a command line: it has no role."""
        return ""


class SnappySession(Session):
    def __init__(self, site: BenchSite, folder: Path, place: Place) -> None:
        super().__init__(folder, place)
        self.site = site
        self.configuration = site.configure(CLIENT)

    def make(self) -> None:
        self._run("init", "--to", "vault")

    def seed(self, path: Path) -> None:
        self._run("backup", str(path), "--to", "vault", "--host", ELSEWHERE)

    def backup(self, path: Path) -> tuple[Run, str]:
        run = self._run("backup", str(path), "--to", "vault", "--host", HERE)
        return run, str(run.details["snapshot"])

    def restore(self, snapshot: str, to: Path) -> Run:
        return self._run("restore", snapshot, "--from", "vault", "--to", str(to))

    def check(self) -> Run:
        return self._run("check", "--from", "vault", "--read-data")

    def _run(self, *words: str) -> Run:
        """Raises Failed with the end of every service's log."""
        line = [SNAPPY, "--config", str(self.configuration), "--json", *words, "--source", "site1"]
        command = Command(line, self.site.environ(CLIENT), self.next_log())
        try:
            run, said = measure(command, self.site.services)
        except Failed as error:
            logs = (f"--- {user}\n{self.site.log(user)[-2000:]}" for user in self.site.processes)
            raise Failed("\n".join([str(error), *logs])) from error
        return replace(run, details=_told(json.loads(said)))


def _told(record: Mapping[str, Any]) -> dict[str, Any]:
    """Of a job's record: its snapshot, and what it says of files, bytes and seconds."""
    result = record.get("result") or record
    return {name: value for name, value in result.items() if isinstance(value, int | float | str)}


@dataclass(frozen=True)
class SnappySide(Side):
    settings: Mapping[str, str] = field(default_factory=dict)
    name: str = "snappy"
    way: str = DIRECT

    def version(self) -> str:
        return snappy.__version__

    def how(self) -> str:
        chosen = " ".join(f"{name}={value}" for name, value in self._chosen().items()) or "the default configuration"
        way = "NATS frames" if self.way == FRAMES else "objects by the direct way"
        return (
            f"{way}; core, audit, source, target and nats-server stand; `snappy backup`, `restore` or `check` is "
            f"started for each run and counted too; the source opens the repository in each; {chosen}"
        )

    @contextmanager
    def open(self, folder: Path, place: Place) -> Iterator[Session]:
        with _site(folder / "site", place, self._chosen()) as site:
            session = SnappySession(site, folder, place)
            session.make()
            yield session

    def _chosen(self) -> Mapping[str, str]:
        return {**self.settings, **({"SNAPPY_SOURCE__SITE1__DIRECT": "false"} if self.way == FRAMES else {})}


@contextmanager
def _site(folder: Path, place: Place, settings: Mapping[str, str]) -> Iterator[BenchSite]:
    made = BenchSite(folder, place, settings)
    (folder / "nats").mkdir(parents=True)
    with ExitStack() as stack:
        made.server = stack.enter_context(deployed(folder / "nats"))
        straight: Any = SimpleNamespace(url=made.server.url)
        made.proxies = dict.fromkeys((*ROLES, CLIENT), straight)
        stack.callback(made.stop)
        for user in ROLES:
            made.start(user)
        asyncio.run(made.wait_ready())
        yield made
