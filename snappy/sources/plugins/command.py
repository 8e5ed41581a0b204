"""The ``command`` plug-in: what a program writes is the backup, what another reads is the restore.

Both stand in the service's configuration, never in a job, which says a name::

    [source.site1.plugins.command.ldap]
    backup = ["slapcat", "-n", "1"]
    restore = ["slapadd", "-n", "1"]
    filename = "directory.ldif"
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any, BinaryIO, ClassVar, cast

import msgspec
from msgspec import Meta

from snappy import secrets
from snappy.config import Secret
from snappy.errors import BadOptions, ProgramFailed, SourceError
from snappy.repository.entries import Entry, Node, StreamSink
from snappy.sources.made_up import folders_above, stream
from snappy.sources.programs import Input, Output, Program, missing
from snappy.sources.site import Site

PLUGIN = "command"
Arguments = tuple[str, ...]


def _about(text: str) -> Any:
    return Meta(description=text)


class CommandSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A pair of programs, run without a shell."""

    backup: Annotated[Arguments, _about("the program whose output is the backup, and its arguments")] = ()
    restore: Annotated[Arguments, _about("the program that reads a backup, and its arguments")] = ()
    filename: Annotated[str, Meta(pattern=r"\A[^/\0]+\Z", description="the file's name in the snapshot")] = "output"
    environment: Annotated[dict[str, str], _about("variables for both, beside PATH and the like")] = {}
    secrets: Annotated[dict[str, Secret], _about("variables whose values are read from files or the environment")] = {}
    folder: Annotated[str, _about("where they run; by default where the service does")] = ""
    seconds: Annotated[float, Meta(ge=0, description="how long each may take; 0: as long as it does")] = 0


class CommandOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which program's output is taken."""

    name: Annotated[str, _about("the name of the pair in the service's configuration")] = "default"


class CommandRestore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which program reads it; it need not belong to the one that wrote it."""

    name: Annotated[str, _about("the name of the pair in the service's configuration")] = "default"


class CommandSource:
    """What a configured program writes; as consistent as the program makes it."""

    name: ClassVar[str] = PLUGIN
    Options: ClassVar[type[msgspec.Struct]] = CommandOptions
    RestoreOptions: ClassVar[type[msgspec.Struct]] = CommandRestore
    Settings: ClassVar[type[msgspec.Struct]] = CommandSettings

    def __init__(self, options: CommandOptions, site: Site) -> None:
        self._name = options.name
        self._settings = _settings(site, options.name)
        self._running: _Running | None = None
        self._interrupted = threading.Event()
        if not self._settings.backup:
            raise _not_configured(site, options.name, "backup")

    def claims(self) -> list[str]:
        """A URL of the name."""
        return [_claim(self._name)]

    def snap(self) -> AbstractAsyncContextManager[None]:
        """Nothing is frozen. Raises :class:`snappy.errors.ProgramMissing`."""
        return self._snap()

    @asynccontextmanager
    async def _snap(self) -> AsyncIterator[None]:
        _require(self._settings.backup[0])
        yield

    def export(self, frozen: None) -> Iterator[Entry]:
        """One file."""
        path = os.fsencode(f"/{PLUGIN}/{self._name}/{self._settings.filename}")
        yield from folders_above(path)
        yield stream(path, self._open)

    def interrupt(self) -> None:
        """End the program."""
        self._interrupted.set()
        if self._running:
            self._running.program.end()

    def _open(self) -> BinaryIO:
        self._running = _Running(self._settings, self._settings.backup, stdin=subprocess.DEVNULL)
        if self._interrupted.is_set():
            self._running.program.end()
        return cast(BinaryIO, _TimedOutput(self._running))

    @classmethod
    def restore_claims(cls, options: CommandRestore, site: Site) -> list[str]:
        """A URL of the name."""
        if not _settings(site, options.name).restore:
            raise _not_configured(site, options.name, "restore")
        return [_claim(options.name)]

    @classmethod
    def import_(cls, options: CommandRestore, claims: Sequence[str], site: Site) -> StreamSink:
        """Raises :class:`snappy.errors.ProgramMissing`."""
        settings = _settings(site, options.name)
        _require(settings.restore[0])
        return CommandSink(settings)


class CommandSink:
    """Gives one file to a program. It runs from the file's first byte; that there are no more bytes it hears only when
    all of them came."""

    def __init__(self, settings: CommandSettings) -> None:
        self._settings = settings
        self._running: _Running | None = None
        self._input: Input | None = None

    def receive(self, path: bytes, node: Node, content: Iterator[bytes]) -> list[str]:
        if self._input:
            raise SourceError("a program takes one file, and there are more", hint="choose one with --include")
        self._running = _Running(self._settings, self._settings.restore, stdin=subprocess.PIPE)
        self._input = Input(self._running.program)
        with self._running.explained():
            for piece in content:
                self._input.write(piece)
        return []

    def finish(self) -> list[str]:
        if not self._input or not self._running:
            raise SourceError("there is no file in what was chosen of the snapshot")
        with self._running.explained():
            self._input.finish()
        return []

    def interrupt(self) -> None:
        """A program that was given a part must not take it for all, whatever it does at a gentler signal."""
        if self._running:
            threading.Thread(target=self._running.program.kill, name="killing", daemon=True).start()

    def close(self) -> None:
        if self._input:
            self._input.close()
        if self._running:
            self._running.over()


class _Running:
    """A program, and the time that it has."""

    def __init__(self, settings: CommandSettings, arguments: Arguments, *, stdin: int) -> None:
        hidden = {name: secrets.read(secret) for name, secret in settings.secrets.items()}
        self.program = Program(
            arguments,
            environment={**settings.environment, **hidden},
            stdin=stdin,
            stdout=subprocess.PIPE if stdin == subprocess.DEVNULL else subprocess.DEVNULL,
            folder=settings.folder or None,
        )
        self._seconds, self._passed = settings.seconds, False
        self._timer = threading.Timer(settings.seconds, self._end)
        self._timer.daemon = True
        if settings.seconds:
            self._timer.start()

    def explained(self) -> _Explained:
        """What fails in the context because the time was over says so."""
        return _Explained(self)

    def over(self) -> None:
        self._timer.cancel()

    def why(self) -> str:
        return f"{self.program.name} took longer than {self._seconds:g} seconds" if self._passed else ""

    def _end(self) -> None:
        self._passed = True
        self.program.kill()


class _Explained:
    def __init__(self, running: _Running) -> None:
        self._running = running

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ProgramFailed):
            error.hint = error.hint or "the log of the source service has what the program said"
            if why := self._running.why():
                raise ProgramFailed(why, hint="see `seconds` in its settings") from error


class _TimedOutput(Output):
    def __init__(self, running: _Running) -> None:
        super().__init__(running.program)
        self._running = running

    def readinto(self, buffer: Any) -> int:
        with self._running.explained():
            return super().readinto(buffer)

    def close(self) -> None:
        self._running.over()
        super().close()


def _settings(site: Site, name: str) -> CommandSettings:
    found: CommandSettings = site.settings(PLUGIN, CommandSettings, name)
    return found


def _claim(name: str) -> str:
    return f"{PLUGIN}://{name}"


def _not_configured(site: Site, name: str, which: str) -> BadOptions:
    return BadOptions(
        f"the command {name!r} has no program for a {which}",
        hint=f"see {which} in [source.{site.name}.plugins.{PLUGIN}.{name}]",
    )


def _require(program: str) -> None:
    if not shutil.which(program):
        raise missing(program)
