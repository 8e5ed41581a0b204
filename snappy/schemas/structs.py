"""JSON Schema (draft 2020-12) of the messages: one document a struct, with the fields' own sentences."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from functools import cache
from types import ModuleType
from typing import Any

import msgspec

from snappy.bus import protocol
from snappy.bus.failures import Failure
from snappy.bus.grants import Grant
from snappy.jobs import (
    api_words,
    audit_words,
    command,
    kinds,
    messages,
    place_words,
    protection_words,
    refusal_words,
    repository_words,
    result_words,
    schedule_words,
    upkeep,
)

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Document = dict[str, Any]
Struct = type[msgspec.Struct]

BASES = (command.Command, upkeep.RepackingCommand, protocol.Request, audit_words.AuditFilter)
"""What others inherit from; never a message itself."""


def job_structs() -> list[Struct]:
    """Every message about jobs, in the order of the modules."""
    modules = (
        kinds,
        upkeep,
        place_words,
        result_words,
        messages,
        api_words,
        refusal_words,
        schedule_words,
        repository_words,
        protection_words,
        audit_words,
    )
    return [struct for module in modules for struct in _structs_of(module)]


def file_structs() -> list[Struct]:
    """Every message of the filesystem over NATS; on the bus they are MessagePack behind a CRC-32."""
    return [*_structs_of(protocol), Failure]


def all_structs() -> list[Struct]:
    """Those of jobs, the grant, those of files."""
    return [*job_structs(), Grant, *file_structs()]


def documents() -> dict[str, Document]:
    """All of them, by file name."""
    return {file_name(struct): schema(struct) for struct in all_structs()}


def file_name(struct: Struct) -> str:
    """``BackupCommand`` becomes ``backup-command.json``; the filesystem's lie in a folder of their own."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", struct.__name__).lower()
    return f"fs/{name}.json" if struct in file_structs() else f"{name}.json"


def schema(struct: Struct) -> Document:
    """The document of one struct; what it refers to stands in its ``$defs``."""
    (top,), definitions = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
    for kind in all_structs():
        _describe(kind, definitions.get(kind.__name__, {}))
    return {"$schema": DIALECT, "title": struct.__name__, **top, "$defs": definitions}


def _structs_of(module: ModuleType) -> list[Struct]:
    return [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, msgspec.Struct) and value.__module__ == module.__name__
        if value not in BASES
    ]


def _describe(struct: Struct, definition: Document) -> None:
    if "description" in definition:  # Python 3.13 takes the indentation out of docstrings, older ones leave it
        definition["description"] = inspect.cleandoc(definition["description"])
    properties = definition.get("properties", {})
    for kind in reversed(struct.__mro__):
        for name, sentence in _field_sentences(kind).items():
            if name in properties:
                properties[name]["description"] = sentence


@cache
def _field_sentences(kind: type) -> dict[str, str]:
    """The string literals that stand under the fields in the class body."""
    if not issubclass(kind, msgspec.Struct) or kind is msgspec.Struct:
        return {}
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, after in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(after, ast.Expr):
            found[field.target.id] = inspect.cleandoc(ast.literal_eval(after.value))
    return found
