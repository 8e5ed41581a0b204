"""What may be asked for: a command for each kind of job, as a submitter writes it.

Unknown fields are refused, so that a typing error is answered. ``schemas/`` is made from this module too.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from snappy.decoding import converted, from_json
from snappy.errors import InvalidCommand
from snappy.jobs.command import VERSION, Command
from snappy.jobs.place_words import TargetKey
from snappy.jobs.upkeep import (
    CheckCommand,
    CopyCommand,
    DrillCommand,
    ForgetCommand,
    KeyCommand,
    PruneCommand,
    RepairCommand,
)


class InitCommand(Command, frozen=True, kw_only=True):
    """Make an empty repository."""


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of several sources of a backup."""

    plugin: str
    options: dict[str, Any] = {}


class BackupCommand(Command, frozen=True, kw_only=True):
    """Back up what a plug-in reads into a new snapshot."""

    plugin: str = "files"
    options: dict[str, Any] = {}
    """The plug-in's own, for example ``{"paths": ["/etc"]}``."""
    sources: Annotated[list[Part], Meta(max_length=16)] = []
    """Instead of plug-in and options: several, all of which are frozen before anything is read."""
    hooks: Annotated[list[Annotated[str, Meta(max_length=63)]], Meta(max_length=15)] = []
    """What the source service runs before and after, by the names that its configuration gives."""
    init: bool = False
    """Make the repository if it is not there."""
    force: bool = False
    """Read every file, whatever the parent says."""
    parent: str | None = None
    """A snapshot to compare with; by default the newest of the same host and paths."""
    host: str | None = None
    """The snapshot's host name; by default the source service's."""
    tags: list[str] = []
    compression: Literal["off", "fastest", "default", "better", "max"] = "default"
    targets: Annotated[list[TargetKey], Meta(max_length=15)] = []
    """Further targets that keep it. The source is read once, for ``target``, or for the first of these that works where
    that one does not; the others get copies."""
    quorum: Annotated[int, Meta(ge=1)] | None = None
    """With how many targets it succeeds; by default all. The others get it later."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sources and (self.options or self.plugin != "files"):
            raise ValueError("sources take the place of plugin and options")
        if len(set(self.hooks)) < len(self.hooks):
            raise ValueError("hooks are different ones")
        named = [self.target, *(place.target for place in self.targets)]
        if len(set(named)) < len(named):
            raise ValueError("targets are different ones, and none of them is target")
        if self.quorum and self.quorum > len(named):
            raise ValueError(f"quorum is {self.quorum}, and the targets are {len(named)}")

    def parts(self) -> list[Part]:
        """All that is read, however it was said."""
        return self.sources or [Part(self.plugin, self.options)]


class RestoreCommand(Command, frozen=True, kw_only=True):
    """Put a snapshot, or part of it, somewhere."""

    snapshot: str = "latest"
    """An id, its first letters, or ``latest``."""
    host: str | None = None
    """With ``latest``: the newest of this host."""
    paths: list[str] = []
    """With ``latest``: the newest of these paths."""
    plugin: str = "files"
    options: dict[str, Any] = {}
    """The plug-in's own, for example ``{"to": "/srv/restored"}``."""
    include: list[str] = []
    exclude: list[str] = []


COMMANDS: dict[str, type[Command]] = {
    "init": InitCommand,
    "backup": BackupCommand,
    "restore": RestoreCommand,
    "check": CheckCommand,
    "drill": DrillCommand,
    "forget": ForgetCommand,
    "prune": PruneCommand,
    "repair": RepairCommand,
    "copy": CopyCommand,
    "key": KeyCommand,
}
AnyCommand = (
    InitCommand
    | BackupCommand
    | RestoreCommand
    | CheckCommand
    | DrillCommand
    | ForgetCommand
    | PruneCommand
    | RepairCommand
    | CopyCommand
    | KeyCommand
)


Message = TypeVar("Message")


def read(body: bytes, schema: type[Message]) -> Message:
    """What ``body``, JSON, says. Raises msgspec.DecodeError alone, also for what is no UTF-8."""
    try:
        return from_json(body, schema)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"JSON is malformed: a text is no UTF-8 ({error.reason})") from error


def parse_command(kind: str, body: bytes) -> AnyCommand:
    """The command in a message. Raises InvalidCommand with the path of the fault."""
    schema = COMMANDS.get(kind)
    if schema is None:
        raise InvalidCommand(f"there is no job kind {kind!r}", hint=f"known are: {', '.join(COMMANDS)}")
    try:
        command: AnyCommand = read(body, schema)  # type: ignore[assignment]
    except msgspec.DecodeError as error:
        raise InvalidCommand(str(error)) from error
    if command.v != VERSION:
        raise InvalidCommand(f"command version {command.v} is not known here - at `$.v`")
    return command


def typed_command(kind: str, fields: dict[str, Any]) -> AnyCommand:
    """The command of a record."""
    command: AnyCommand = converted(fields, COMMANDS[kind])  # type: ignore[assignment]
    return command
