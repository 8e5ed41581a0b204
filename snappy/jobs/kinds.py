"""What may be asked for: a command for each kind of job, as a submitter writes it.

Unknown fields are refused, so that a typing error is answered. ``schemas/`` is made from this module too.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from snappy.bandwidth import Timetable
from snappy.errors import InvalidCommand

VERSION = 1

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="a service, a target or a key")]
RequestId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="makes a repeat harmless")]


Moment = Annotated[datetime, Meta(tz=True, description="RFC 3339, with its time zone: 2027-01-01T02:00:00Z")]


class Command(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What every job names: who does it, with which key, at which target. Never a URL, a password or its path."""

    source: Name
    """The source service that does the work."""
    target: Name
    """The target that keeps the repository."""
    key: Name = "default"
    """Which of the source service's repository passwords to use."""
    request: RequestId | None = None
    """The submitter's own id for this job; stands in every event."""
    priority: Annotated[int, Meta(ge=-10, le=10)] = 0
    """A higher one overtakes what waits; who waits gains a step each time that the core's ``ageing_seconds`` pass."""
    not_before: Moment | None = None
    """No worker gets the job earlier."""
    deadline: Moment | None = None
    """If the job is not over then, it is stopped, and fails with the code ``deadline``."""
    attempts: Annotated[int, Meta(ge=1, le=1000)] | None = None
    """How many attempts may end with an error; never more than the core's ``max_attempts``."""
    time_limit: Annotated[float, Meta(gt=0)] | None = None
    """Seconds that one attempt may take; then it is stopped, and the job fails with the code ``time-limit``."""
    duplicates: Literal["queue", "skip", "replace"] = "queue"
    """What if a twin is not over: the same kind, source, target, plug-in and options, by the same submitter.
    ``queue``: both run, each in its turn. ``skip``: this job is rejected with the code ``duplicate``. ``replace``: the
    twin is cancelled."""
    bandwidth: Annotated[str, Meta(max_length=512)] | None = None
    """Bytes a second at the target, in the words of rclone's --bwlimit: ``512k``, ``10M:1M`` (upload:download), or by
    the target's time of day ``08:00,512k 18:00,off``."""
    v: int = VERSION

    def __post_init__(self) -> None:
        Timetable.parse(self.bandwidth or "")
        if self.not_before and self.deadline and self.deadline <= self.not_before:
            raise ValueError("a deadline comes after not_before")


class InitCommand(Command, frozen=True, kw_only=True):
    """Make an empty repository."""


class BackupCommand(Command, frozen=True, kw_only=True):
    """Back up what a plug-in reads into a new snapshot."""

    plugin: str = "files"
    options: dict[str, Any] = {}
    """The plug-in's own, for example ``{"paths": ["/etc"]}``."""
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


_SUBSET = r"^([0-9]+/[0-9]+|[0-9]+(\.[0-9]+)?%|[0-9]+[KMGTkmgt]?)$"
_NUMBER = re.compile(r"[0-9.]+")


class CheckCommand(Command, frozen=True, kw_only=True):
    """Find out whether a repository is whole."""

    read_data: bool = False
    """Read every pack, and prove all that is in it."""
    read_data_subset: Annotated[str, Meta(pattern=_SUBSET)] | None = None
    """Read a part alone: ``1/7`` is the first of seven, ``10%`` are as many packs at random, ``500M`` about so many
    bytes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.read_data and self.read_data_subset:
            raise ValueError("read_data reads all, so it excludes read_data_subset")
        if any(float(number) == 0 for number in _NUMBER.findall(self.read_data_subset or "")):
            raise ValueError(f"read_data_subset: {self.read_data_subset} is no part of the data")


COMMANDS: dict[str, type[Command]] = {
    "init": InitCommand,
    "backup": BackupCommand,
    "restore": RestoreCommand,
    "check": CheckCommand,
}
AnyCommand = InitCommand | BackupCommand | RestoreCommand | CheckCommand


Message = TypeVar("Message")


def read(body: bytes, schema: type[Message]) -> Message:
    """What ``body``, JSON, says. Raises msgspec.DecodeError alone, also for what is no UTF-8."""
    try:
        return msgspec.json.decode(body, type=schema)
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
    command: AnyCommand = msgspec.convert(fields, COMMANDS[kind])  # type: ignore[assignment]
    return command
