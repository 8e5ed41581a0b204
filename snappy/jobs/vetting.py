"""What the core can say of a command before a worker sees it: are its services known, does its plug-in exist, does
the plug-in have such options. The plug-in's values, and whether the submitter may ask, are the source service's to
judge.

So a secret under a name that no option has never comes to stand in a record, nor does one inside a URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from snappy.errors import BadOptions, InvalidCommand, UnknownPlugin, UnknownService
from snappy.jobs.kinds import AnyCommand, BackupCommand, Part, RestoreCommand
from snappy.jobs.messages import Beat
from snappy.jobs.upkeep import CopyCommand

PASSWORD_IN_URL = re.compile(r"://[^/@:\[\]]*:(?!\d{1,5}(?:[/?#,]|$))[^/]")
"""What follows a user's name; a port is no password, unless an ``@`` follows it."""


def check_secrets(command: AnyCommand) -> None:
    """Raises InvalidCommand if a URL holds a password, and does not repeat it: what is accepted is kept, told to
    observers and written into the audit log."""
    for path, text in _texts(msgspec.to_builtins(command), "$"):
        if PASSWORD_IN_URL.search(text):
            hint = "put it where the source service finds it: its environment, or its storage_options"
            raise InvalidCommand(f"a URL may not hold a password - at `{path}`", hint=hint)


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Each text in a value, and where it stands."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from _texts(each, f"{path}.{str(name)[:64]}")
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from _texts(each, f"{path}[{number}]")


def check_services(command: AnyCommand, beats: Iterable[Beat]) -> None:
    """Raises UnknownService if the source or the target was never seen."""
    known: dict[str, set[str]] = {"source": set(), "target": set()}
    for beat in beats:
        known[beat.role].add(beat.service)
    named = [("source", command.source), ("target", command.target)]
    if isinstance(command, CopyCommand):
        named.append(("target", command.origin))
    if isinstance(command, BackupCommand):
        named += [("target", place.target) for place in command.targets]
    for role, name in named:
        if name not in known[role]:
            listed = ", ".join(sorted(known[role])) or "none yet"
            raise UnknownService(f"no {role} service {name!r} was ever seen", hint=f"known are: {listed}")


def check_plugin(kind: str, command: AnyCommand, beats: Iterable[Beat]) -> None:
    """Raises UnknownPlugin or BadOptions if no replica of the source service could take the command; ``beats`` tell
    their plug-ins."""
    offered = [beat.plugins for beat in beats if (beat.role, beat.service) == ("source", command.source)]
    if isinstance(command, BackupCommand):
        for number, part in enumerate(command.parts()):
            place = f"$.sources[{number}].options" if command.sources else "$.options"
            _check_part(kind, part, offered, place, command)
    elif isinstance(command, RestoreCommand):
        _check_part(kind, Part(command.plugin, command.options), offered, "$.options", command)


def _check_part(kind: str, part: Part, offered: list[dict[str, Any]], path: str, command: AnyCommand) -> None:
    schemas = [plugins[part.plugin] for plugins in offered if part.plugin in plugins]
    if any(offered) and not schemas:
        names = ", ".join(sorted(set().union(*offered)))
        raise UnknownPlugin(f"{command.source} has no plug-in {part.plugin!r}", hint=f"it has: {names}")
    options = [names for names in (_option_names(schema, kind) for schema in schemas) if names is not None]
    if options:
        _check_names(part, set().union(*options), path)


def _check_names(part: Part, known: set[str], path: str) -> None:
    for name in part.options:
        if name not in known:
            listed = ", ".join(sorted(known))
            raise BadOptions(
                f"the plug-in {part.plugin!r} has no option {name[:64]!r} - at `{path}`", hint=f"it has: {listed}"
            )


def _option_names(schemas: Any, kind: str) -> set[str] | None:
    """The names in a plug-in's JSON schema (an object, perhaps behind a reference); None if it allows any."""
    schema = schemas.get(kind) if isinstance(schemas, Mapping) else None
    if not isinstance(schema, Mapping):
        return None
    definition = schema.get("$defs", {}).get(str(schema.get("$ref", "")).rpartition("/")[2], schema)
    if definition.get("additionalProperties") is not False:
        return None
    return set(definition.get("properties", {}))
