"""``snappy plugins list|show|check``: what can be backed up, with which options, and what is missing for it here."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator
from inspect import getdoc
from typing import TYPE_CHECKING, Any

from snappy.cli import options, output
from snappy.errors import ProgramMissing, SourceError, UnknownPlugin, UnknownService

if TYPE_CHECKING:
    from snappy.sources.base import Source

Schemas = dict[str, Any]
"""JSON schemas by what they are of: ``backup``, ``restore``, ``settings``."""
TITLES = {
    "backup": "options of a backup",
    "restore": "options of a restore",
    "settings": "settings at the source service, in [source.<service>.plugins.{name}.<name>]",
}


def register(commands: options.Commands) -> None:
    """Add the commands."""
    plugins = options.command(commands, "plugins", "what can be backed up, and what it needs")
    verbs = plugins.add_subparsers(title="verbs", metavar="VERB", required=True)
    listing = options.command(verbs, "list", "list the source plug-ins that are installed")
    listing.set_defaults(run=_list)
    show = options.command(verbs, "show", "print a plug-in's options and settings")
    show.add_argument("name", metavar="NAME")
    show.set_defaults(run=_show)
    for verb in (listing, show):
        verb.add_argument("--source", metavar="NAME", help="ask this source service on the bus, rather than look here")
    check = options.command(verbs, "check", "say what this machine lacks for plug-ins")
    check.add_argument("names", metavar="NAME", nargs="*", help="fail if one of these lacks something (default: all)")
    check.set_defaults(run=_check)


# ---- list ------------------------------------------------------------------------------------------------------------


def _list(arguments: argparse.Namespace) -> int:
    if arguments.source:
        names = sorted(asyncio.run(_of_service(arguments)))
        output.result(names, "\n".join(names), as_json=arguments.json)
        return 0
    rows = list(_installed())
    text = output.table(("NAME", "PACKAGE", "WHAT"), [list(row.values()) for row in rows])
    output.result(rows, text, as_json=arguments.json)
    return 0


def _installed() -> Iterator[dict[str, str]]:
    from snappy.sources import base

    for entry in base.entries():
        package = entry.dist.name if entry.dist else ""
        try:
            about = _about(base.load(entry.name))
        except SourceError as error:
            about = error.message
        yield {"name": entry.name, "package": package, "about": about}


def _about(plugin: type[Source]) -> str:
    return (getdoc(plugin) or "").partition("\n\n")[0].replace("\n", " ")


async def _of_service(arguments: argparse.Namespace) -> dict[str, Schemas]:
    """The plug-ins of a source service, by name, as its last beat tells of them."""
    from snappy.cli import session

    async with session.for_questions(arguments) as client:
        for beat in await client.services("source", arguments.source):
            return beat.plugins
    raise UnknownService(f"no source service is named {arguments.source!r}")


# ---- show ------------------------------------------------------------------------------------------------------------


def _show(arguments: argparse.Namespace) -> int:
    name = arguments.name
    about, schemas = asyncio.run(_remote(arguments)) if arguments.source else _local(name)
    parts = [f"{name}: {about}" if about else name]
    for of, schema in schemas.items():
        parts.append(f"{TITLES[of].format(name=name)}:\n{described(schema)}")
    output.result({"name": name, "about": about, **schemas}, "\n\n".join(parts), as_json=arguments.json)
    return 0


async def _remote(arguments: argparse.Namespace) -> tuple[str, Schemas]:
    plugins = await _of_service(arguments)
    if arguments.name not in plugins:
        raise UnknownPlugin(
            f"{arguments.source} has no plug-in {arguments.name!r}", hint=f"it has: {', '.join(sorted(plugins))}"
        )
    return "", plugins[arguments.name]


def _local(name: str) -> tuple[str, Schemas]:
    from snappy.sources import base

    plugin = base.load(name)
    return _about(plugin), base.schemas_of(plugin)


def described(schema: dict[str, Any]) -> str:
    """An object's fields, a line each: its name, what may stand there, what it is for."""
    definitions = schema.get("$defs", {})
    fields = _resolved(schema, definitions)
    required = fields.get("required", [])
    rows = []
    for name, field in fields.get("properties", {}).items():
        default = "required" if name in required else output.encoded(field.get("default")).decode()
        rows.append([f"  {name}", _kind(field, definitions), default, _purpose(field)])
    return output.table(("  NAME", "TYPE", "DEFAULT", "WHAT"), rows) if rows else "  none"


def _resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref", "").rpartition("/")[2]
    return definitions[reference] if reference else schema


def _purpose(field: dict[str, Any]) -> str:
    found = (each.get("description", "") for each in (field, *field.get("anyOf", ())))
    return next(filter(None, found), "")


def _kind(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    field = _resolved(field, definitions)
    if "enum" in field:
        return "|".join(map(str, field["enum"]))
    if "anyOf" in field:
        return " or ".join(_kind(each, definitions) for each in field["anyOf"] if each.get("type") != "null")
    if field.get("type") == "array":
        return f"list of {_kind(field.get('items') or {}, definitions)}"
    if "properties" in field:
        return "{" + ", ".join(field["properties"]) + "}"
    return str(field.get("type", "anything"))


# ---- check -----------------------------------------------------------------------------------------------------------


def _check(arguments: argparse.Namespace) -> int:
    found = _lacking(arguments.names)
    rows = [[name, each] for name, lacks in found.items() for each in lacks or ["nothing is missing"]]
    output.result(found, output.table(("NAME", "MISSING"), rows), as_json=arguments.json)
    return ProgramMissing.exit_code if arguments.names and any(found.values()) else 0


def _lacking(names: list[str]) -> dict[str, list[str]]:
    from snappy.sources import base

    found = {}
    for name in names or base.names():
        try:
            found[name] = base.missing_of(base.load(name))
        except UnknownPlugin:
            raise
        except SourceError as error:
            found[name] = [error.message]
    return found
