"""``snappy.toml`` as structs: one section a role, so that a process is given what its role needs and no more.

:func:`load` reads the file and the environment. ``SNAPPY_NATS_URL`` stands for ``nats.url`` and the like (see
:data:`SHORTHANDS`); any other key is ``SNAPPY_`` and its path in capitals with two underscores between the parts, where
a hyphen in a name is written as one underscore: ``SNAPPY_SOURCE__EDGE_1__HOST`` stands for ``source.edge-1.host``.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, inspect

from snappy import durations
from snappy.bandwidth import Timetable
from snappy.decoding import converted
from snappy.errors import UsageError

SHORTHANDS = {
    "SNAPPY_NATS_URL": ("nats", "url"),
    "SNAPPY_NATS_USER": ("nats", "user"),
    "SNAPPY_PREFIX": ("prefix",),
    "SNAPPY_STATE_DIR": ("state_dir",),
    "SNAPPY_LOG_LEVEL": ("log_level",),
}
ELSEWHERE = frozenset({"SNAPPY_CONFIG", "SNAPPY_PASSWORD", "SNAPPY_NATS_SERVER", "SNAPPY_CI", "SNAPPY_RESTIC_NEWEST"})
"""Names of the environment that are read by others: the command line, the embedded server, the tests."""
TOLD = frozenset({"SNAPPY_JOB", "SNAPPY_SUBMITTER", "SNAPPY_HOOK", "SNAPPY_ERROR", "SNAPPY_SNAPSHOT", "SNAPPY_SAMPLE"})
"""What hooks and the programs of drills are told, and may pass on to a ``snappy`` that they call."""

NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"
ServiceName = Annotated[str, Meta(pattern=NAME)]
RIGHTS = r"^[rlwWd]+$"


class Secret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a secret is found: exactly one of the three. The secret itself never stands in the configuration."""

    file: str = ""
    env: str = ""
    command: str = ""

    def __post_init__(self) -> None:
        if sum(map(bool, (self.file, self.env, self.command))) != 1:
            raise ValueError("a secret has exactly one of file, env and command")


class Nats(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach the bus. Without ``url`` a command starts the embedded server."""

    url: str = ""
    user: Annotated[str, Meta(pattern=r"^([a-z0-9][a-z0-9-]{0,62})?$")] = ""
    """Also the caller's token in subjects; empty: authentication is off."""
    password: Secret | None = None
    nkey_seed: Secret | None = None
    tls_ca: str = ""
    tls_certificate: str = ""
    tls_key: str = ""


class Allow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one submitter may ask of a source service. ``*`` in a list stands for all."""

    kinds: list[str] = []
    plugins: list[str] = []
    targets: list[str] = []
    read: list[str] = []
    """Absolute folders or URL prefixes that a backup may read."""
    restore_to: list[str] = []
    """Absolute folders or URL prefixes that a restore may write to."""
    hooks: list[str] = []
    """Which a backup may choose."""


Limit = Annotated[int, Meta(ge=0)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many attempts may run at once, over all cores; 0: as many as want to."""

    source: Limit = 0
    """At one source service."""
    target: Limit = 0
    """At one target."""
    key: Limit = 0
    """With one key of one source service."""
    sources: dict[ServiceName, Limit] = {}
    """Another limit for a source service of that name; so for targets and keys."""
    targets: dict[ServiceName, Limit] = {}
    keys: dict[ServiceName, Limit] = {}


class Deletion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may have what is kept at one target deleted, and how long before. The target's own ``rights`` must hold ``d``
    as well."""

    may_delete: list[str] = []
    """Submitters whose forget, prune and repair jobs may delete there."""
    sources: list[str] = []
    """Source services that such a job may name; empty: any. The one that carries it out can delete what it likes."""
    delete_after: Annotated[float, Meta(ge=0)] = 0.0
    """Hours that such a job waits after it was announced; whoever may cancel it can do so meanwhile."""


class Promise(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How old the newest good backup, and the newest good drill, of some sources may be: ``26h``, ``30d``. ``*`` stands
    for all."""

    source: str = "*"
    """A source service."""
    target: str = "*"
    host: str = "*"
    """As snapshots have it."""
    paths: list[str] = []
    """Exactly these; none: whatever they are. With names for source and target, a source that was never backed up is
    known by them."""
    max_age: str = ""
    max_drill_age: str = ""

    def __post_init__(self) -> None:
        for age in filter(None, (self.max_age, self.max_drill_age)):
            durations.seconds(age)


class Core(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    nats: Nats | None = None
    """Its own way to the bus, where several roles run from one file; by default ``[nats]``. So in each role."""
    signing_key: Secret | None = None
    """The Ed25519 key that signs grants, base64url."""
    hold_seconds: Annotated[float, Meta(gt=0)] = 30.0
    max_attempts: Annotated[int, Meta(ge=1)] = 3
    max_lost_attempts: Annotated[int, Meta(ge=1)] = 10
    keep_jobs_days: float = 30.0
    ageing_seconds: Annotated[float, Meta(gt=0)] = 600.0
    """A job that waits gains a step of priority each time so many seconds pass."""
    limits: Limits = Limits()
    may_delete: list[str] = []
    """Submitters whose forget, prune and repair jobs may delete at every target that lets them."""
    targets: dict[ServiceName, Deletion] = {}
    promises: list[Promise] = []
    """The first that names a source counts for it, beside those of its schedules."""
    replicas: Annotated[int, Meta(ge=1, le=5)] = 1


class Audit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    nats: Nats | None = None
    path: str = ""
    """The folder of the audit log; by default ``audit`` in the state folder."""
    readers: list[str] = []
    """Who may read all entries, by user; ``*`` stands for everybody. Others read those of their own jobs."""


class DrillProgram(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a drill may run on what it restored. It gets the folder as its last argument, and works in it."""

    command: Annotated[list[str], Meta(min_length=1)]
    seconds: Annotated[float, Meta(gt=0)] = 3600.0
    """How long it may take; then it is ended, and the drill fails."""


class Hook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Programs around a backup, with their arguments; no shell is involved. Each may be empty."""

    before: list[str] = []
    """If it fails, nothing is read, and the job fails."""
    after: list[str] = []
    """Undoes what ``before`` did: is run whenever that was begun, whoever failed, and after a crash; so it may be run
    where nothing is left to undo."""
    on_error: list[str] = []
    """Is run before ``after`` where the backup, or ``before``, failed."""
    around: Literal["backup", "snapshot"] = "backup"
    """``snapshot``: ``after`` is run as soon as the plug-in has its snapshot, not only when all was read."""
    seconds: Annotated[float, Meta(gt=0)] = 60.0
    """How long each may take; then it is ended, and has failed."""
    environment: dict[str, str] = {}
    """Variables beside ``PATH`` and the like; nothing else of the service's."""


class SourceService(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One source service; the section's name is its name, and its user on the bus."""

    replica: Annotated[str, Meta(pattern=r"^([a-z0-9][a-z0-9-]{0,62})?$")] = ""
    keys: dict[ServiceName, Secret] = {}
    allow: dict[str, Allow] = {}
    """By submitter; ``*`` stands for every submitter that has no entry of its own."""
    scratch: str = ""
    """The folder that any submitter may restore to; empty: none."""
    storage_options: dict[str, dict[str, Any]] = {}
    """fsspec options for URL sources, by protocol."""
    plugins: dict[str, dict[ServiceName, dict[str, Any]]] = {}
    """What plug-ins are told but jobs may not say, by plug-in and by the name that jobs use for it."""
    drills: dict[ServiceName, DrillProgram] = {}
    """Programs that a drill may run, by the name that jobs use."""
    hooks: dict[ServiceName, Hook] = {}
    """Programs that a backup may have around it, by the name that jobs use."""
    work: str = ""
    """The folder of what plug-ins keep while a job runs, and of what a drill restores; by default ``work`` in the state
    folder."""
    host: str = ""
    """The host name written into snapshots; by default the machine's."""
    concurrent_jobs: Annotated[int, Meta(ge=1, le=64)] = 1
    index_cache: bool = True
    """Keep what repositories' index files say in the state folder, for the next job."""
    workers: Annotated[int, Meta(ge=0, le=64)] = 0
    """Worker processes of a large backup; 0: as many as processors, but eight at most. 1: none, a backup is one
    process."""
    memory_mib: Annotated[int, Meta(ge=0)] = 0
    """What the worker processes of one backup may take together, in MiB: fewer are started then. 0: what they need."""
    patience_seconds: Annotated[float, Meta(ge=0)] = 60.0
    """How long a job waits for a target, or its storage, that was there and went away; then the attempt fails."""
    niceness: Annotated[int, Meta(ge=0, le=19)] = 0
    """How far worker processes give way to others."""
    direct: bool = True
    """Exchange objects with a target on the same host over a Unix socket, past NATS."""
    nats: Nats | None = None


class TargetService(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One target service; the section's name is its name, and its user on the bus."""

    url: str
    core_public_key: Secret | None = None
    replica: Annotated[str, Meta(pattern=r"^([a-z0-9][a-z0-9-]{0,62})?$")] = ""
    rights: Annotated[str, Meta(pattern=RIGHTS)] = "rlw"
    """r read, l list, w write new, W overwrite, d delete. ``rlw`` is append-only; locks stay deletable."""
    storage_options: dict[str, Any] = {}
    idle_seconds: Annotated[float, Meta(gt=0)] = 60.0
    bandwidth: str = ""
    """In the words of rclone's --bwlimit: ``10M``, ``10M:1M`` (upload:download), ``08:00,512k 18:00,off``."""
    direct: bool = True
    """Offer sources on the same host a Unix socket for objects."""
    nats: Nats | None = None

    def __post_init__(self) -> None:
        Timetable.parse(self.bandwidth)


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    prefix: ServiceName = "snappy"
    state_dir: str = ""
    """The folder of what must outlive a process, and of what saves it work."""
    log_level: Annotated[str, Meta(pattern="^(debug|info|warning|error|critical)$")] = "info"
    nats: Nats = Nats()
    core: Core | None = None
    audit: Audit | None = None
    source: dict[ServiceName, SourceService] = {}
    target: dict[ServiceName, TargetService] = {}


def load(path: str | None, environ: Mapping[str, str]) -> Config:
    """The configuration in ``path`` (else the first of :func:`default_places` that exists) under ``environ``.

    Raises :class:`UsageError`, which names the file or the variable, for what it cannot understand.
    """
    place = path or environ.get("SNAPPY_CONFIG") or next(filter(os.path.isfile, default_places(environ)), "")
    raw = _read(place) if place else {}
    _checked(raw, place)
    for name, keys in _settings(environ, secrets=set(_secret_variables(raw))):
        _put(raw, keys, environ[name])
        _checked(raw, f"the environment's {name}", strict=False)
    return _with_defaults(_checked(raw, place or "the environment", strict=False), environ)


def default_places(environ: Mapping[str, str]) -> list[str]:
    """Where a configuration is looked for, the nearest first."""
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "/"), ".config")
    return ["snappy.toml", os.path.join(home, "snappy", "snappy.toml"), "/etc/snappy/snappy.toml"]


def nearest(wrong: str, right: Iterable[str]) -> str:
    """A hint that names the likeliest of ``right``, or all of them."""
    known = {name.lower(): name for name in sorted(right)}
    close = difflib.get_close_matches(wrong.lower(), known, n=1, cutoff=0.5)
    return f"did you mean {known[close[0]]!r}?" if close else f"known are: {', '.join(known.values())}"


def _read(place: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(place).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the configuration {place}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{place} is not TOML: {error}") from error


def _checked(raw: dict[str, Any], place: str, *, strict: bool = True) -> Config:
    try:
        return converted(raw, Config, strict=strict)
    except msgspec.ValidationError as error:
        raise UsageError(f"{place}: {error}", hint=_hint(str(error))) from error


def _hint(fault: str) -> str:
    found = re.match(r"Object contains unknown field `([^`]*)`(?: - at `\$\.?([^`]*)`)?", fault)
    if not found:
        return "see docs/configuration.md"
    return nearest(found[1], _fields_at(found[2] or ""))


def _fields_at(path: str) -> list[str]:
    """The keys known at a msgspec path such as ``source[...].allow[...]``."""
    kind: inspect.Type = inspect.type_info(Config)
    for part in re.findall(r"\[[^]]*\]|[^.\[]+", path):
        kind = _step(kind, part)
    return [field.encode_name for field in kind.fields] if isinstance(kind, inspect.StructType) else []


def _step(kind: inspect.Type, part: str) -> inspect.Type:
    if isinstance(kind, inspect.DictType):
        found = kind.value_type
    else:
        assert isinstance(kind, inspect.StructType)
        found = next(field.type for field in kind.fields if field.encode_name == part)
    if isinstance(found, inspect.UnionType):
        return next(option for option in found.types if not isinstance(option, inspect.NoneType))
    return found


def _secret_variables(raw: Any) -> Iterator[str]:
    """The variables that the file names as the place of a secret."""
    if isinstance(raw, dict):
        yield from (value for key, value in raw.items() if key == "env" and isinstance(value, str))
        for value in raw.values():
            yield from _secret_variables(value)


def _settings(environ: Mapping[str, str], secrets: set[str]) -> list[tuple[str, tuple[str, ...]]]:
    """The variables that stand for a key, with the key's path."""
    elsewhere = ELSEWHERE | TOLD | secrets
    names = sorted(name for name in environ if name.startswith("SNAPPY_") and name not in elsewhere)
    return [(name, SHORTHANDS.get(name) or _key_path(name)) for name in names]


def _key_path(name: str) -> tuple[str, ...]:
    parts = name.removeprefix("SNAPPY_").lower().split("__")
    if len(parts) < 2 or not all(parts):
        raise UsageError(f"the environment's {name} is not known", hint=nearest(name, {*SHORTHANDS, *ELSEWHERE}))
    if parts[0] in ("source", "target"):
        parts[1] = parts[1].replace("_", "-")
    return tuple(parts)


def _put(raw: dict[str, Any], keys: tuple[str, ...], value: str) -> None:
    *folders, last = keys
    for key in folders:
        raw = raw.setdefault(key, {})
        if not isinstance(raw, dict):
            raise UsageError(f"{'.'.join(keys)} lies below a value")
    raw[last] = value


def _with_defaults(config: Config, environ: Mapping[str, str]) -> Config:
    return config if config.state_dir else msgspec.structs.replace(config, state_dir=default_state_dir(environ))


def default_state_dir(environ: Mapping[str, str]) -> str:
    """Where the embedded server and the audit keep what must outlive them, and sources their caches."""
    home = environ.get("XDG_STATE_HOME") or os.path.join(environ.get("HOME", "/"), ".local", "state")
    return os.path.join(home, "snappy")
