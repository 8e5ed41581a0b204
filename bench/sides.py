"""Who is measured: Snappy's peers here, Snappy itself in :mod:`bench.snappy_side`.

A *side* opens a *session*: a new, empty repository at a place, with whatever must stand there. What a session does is
measured, but for :meth:`Session.seed`. Every side runs with its own defaults; what each command is stands in the
session's ``words``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.meter import Command, Run, measure
from tests.support import tools
from tests.support.places import Place

PASSWORD = "correct horse battery staple"
ELSEWHERE = "elsewhere"
"""The host of what was in the repository before: no parent of what is measured."""
HERE = "here"


class Session(ABC):
    """One repository of one side; ``folder`` is the side's own."""

    def __init__(self, folder: Path, place: Place) -> None:
        self.folder, self.place = folder, place
        self.runs = 0

    @abstractmethod
    def make(self) -> None:
        """The empty repository."""

    @abstractmethod
    def seed(self, path: Path) -> None:
        """Put what lies there into the repository, as another host's."""

    @abstractmethod
    def backup(self, path: Path) -> tuple[Run, str]:
        """Back up a folder; the value has the snapshot's name."""

    @abstractmethod
    def restore(self, snapshot: str, to: Path) -> Run: ...

    @abstractmethod
    def check(self) -> Run:
        """Read all data and compare it with its names."""

    def stored(self) -> int:
        """Bytes in the repository."""
        return self.place.size()

    def next_log(self) -> Path:
        self.runs += 1
        return self.folder / f"run-{self.runs}.log"


class Side(ABC):
    """``name`` stands in the tables, ``version`` and ``how`` in their heading."""

    name: str

    @abstractmethod
    def version(self) -> str: ...

    @abstractmethod
    def how(self) -> str:
        """How it is run, in a sentence."""

    @abstractmethod
    def open(self, folder: Path, place: Place) -> AbstractContextManager[Session]: ...

    def cannot(self, target: str, work: str) -> str:
        """Why it does no such work (or nothing at all) at such a target; empty where it does."""
        return ""


# ---- restic ----------------------------------------------------------------------------------------------------------


class ResticSession(Session):
    def __init__(self, program: str, folder: Path, place: Place) -> None:
        super().__init__(folder, place)
        self.restic = place.restic(program, PASSWORD, folder / "cache")

    def make(self) -> None:
        self._run("init")

    def seed(self, path: Path) -> None:
        self._run("backup", "--host", ELSEWHERE, path)

    def backup(self, path: Path) -> tuple[Run, str]:
        run, _ = self._run("backup", "--host", HERE, path)
        _, said = self._run("snapshots", "--host", HERE, "--json", "latest")
        return run, json.loads(said)[0]["id"]

    def restore(self, snapshot: str, to: Path) -> Run:
        return self._run("restore", snapshot, "--target", to)[0]

    def check(self) -> Run:
        return self._run("check", "--read-data")[0]

    def _run(self, *words: str | Path) -> tuple[Run, str]:
        command = [self.restic.program, *map(str, words)]
        return measure(Command(command, self.restic.environment, self.next_log()), {})


@dataclass(frozen=True)
class ResticSide(Side):
    program: str
    name: str = "restic"

    def version(self) -> str:
        return _said([self.program, "version"]).removeprefix("restic ").split(" compiled")[0]

    def how(self) -> str:
        return "a process for each run, with its defaults (compression auto); each run derives its key, about 0.7 s"

    @contextmanager
    def open(self, folder: Path, place: Place) -> Iterator[Session]:
        session = ResticSession(self.program, folder, place)
        session.make()
        yield session


# ---- borg ------------------------------------------------------------------------------------------------------------


class BorgSession(Session):
    def __init__(self, program: str, folder: Path, place: Place) -> None:
        super().__init__(folder, place)
        self.program = program
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "BORG_BASE_DIR": str(folder),
            "BORG_REPO": place.url,
            "BORG_PASSPHRASE": PASSWORD,
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
            "LANG": "C.UTF-8",
        }

    def make(self) -> None:
        self._run("init", "--encryption", "repokey-blake2")

    def seed(self, path: Path) -> None:
        self._create(ELSEWHERE, path)

    def backup(self, path: Path) -> tuple[Run, str]:
        archive = f"{HERE}-{self.runs}"
        return self._create(archive, path), archive

    def restore(self, snapshot: str, to: Path) -> Run:
        to.mkdir(exist_ok=True)
        return self._run("extract", "--sparse", f"::{snapshot}", cwd=to)

    def check(self) -> Run:
        return self._run("check", "--verify-data")

    def _create(self, archive: str, path: Path) -> Run:
        return self._run("create", "--compression", "zstd,3", f"::{archive}", path)

    def _run(self, *words: str | Path, cwd: Path | None = None) -> Run:
        command = [self.program, *map(str, words)]
        return measure(Command(command, self.environ, self.next_log(), cwd), {})[0]


@dataclass(frozen=True)
class BorgSide(Side):
    program: str
    name: str = "borg"

    def version(self) -> str:
        return _said([self.program, "--version"]).removeprefix("borg ")

    def how(self) -> str:
        return "a process for each run, zstd at level 3 rather than its default lz4; each run derives its key"

    def cannot(self, target: str, work: str) -> str:
        return "borg speaks no S3" if target == "s3" else ""

    @contextmanager
    def open(self, folder: Path, place: Place) -> Iterator[Session]:
        session = BorgSession(self.program, folder, place)
        session.make()
        yield session


# ---- who is there ----------------------------------------------------------------------------------------------------


def peers(wanted: Sequence[str], given: Mapping[str, str]) -> tuple[list[Side], dict[str, str]]:
    """The peers that are there, and why the others are not. ``given`` are paths of programs by name: they win."""
    found, missing = list[Side](), dict[str, str]()
    for name in wanted:
        program = _program(name, given)
        if program is None:
            missing[name] = REMEDIES[name]
        else:
            found.append(ResticSide(program) if name == "restic" else BorgSide(program))
    return found, missing


REMEDIES = {
    "restic": "no restic is installed: `make services` brings it, SNAPPY_RESTIC_NEWEST or --restic names another",
    "borg": "no borg is installed: `apt install borgbackup` brings it, --borg names another",
}


def _program(name: str, given: Mapping[str, str]) -> str | None:
    if path := given.get(name):
        return shutil.which(path) or None
    return tools.newest_restic() or tools.restic() if name == "restic" else shutil.which("borg")


def _said(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
