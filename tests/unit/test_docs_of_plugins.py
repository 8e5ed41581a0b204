"""The pages name all plug-ins and each option that a job may give; settings are told by ``snappy plugins show``."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from snappy.sources import base

ROOT = Path(__file__).parents[2]
PLUGINS = {entry.name: entry.load() for entry in base.entries()}


def section(name: str) -> str:
    """What docs/plugins.md says of a plug-in."""
    found = re.search(rf"^### `{name}`$(.*?)(?=^##)", (ROOT / "docs/plugins.md").read_text() + "\n##", re.M | re.S)
    assert found, f"docs/plugins.md has no section `{name}`"
    return found[1]


@pytest.mark.parametrize("name", sorted(PLUGINS))
def test_a_plug_in_is_in_the_tables(name: str) -> None:
    readme = re.search(rf"^\| .*`{name}`.*\|$", (ROOT / "README.md").read_text(), re.M)
    assert name == "null" or readme
    assert re.search(rf"^\| \[`{name}`\]", (ROOT / "docs/plugins.md").read_text(), re.M)


@pytest.mark.parametrize("name", sorted(PLUGINS))
def test_a_page_names_all_options(name: str) -> None:
    plugin, told = PLUGINS[name], section(name)
    fields = msgspec.structs.fields(plugin.Options) + msgspec.structs.fields(plugin.RestoreOptions)
    names = {field.encode_name for field in fields}
    assert sorted(one for one in names if f"`{one}`" not in told) == []
