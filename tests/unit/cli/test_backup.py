"""What ``snappy backup`` makes of its arguments."""

from __future__ import annotations

import pytest

from snappy.cli.backup import _sources
from snappy.errors import UsageError


def test_one_source_is_a_plugin_with_its_options() -> None:
    assert _sources("files", {"paths": ["/a"]}, []) == {"plugin": "files", "options": {"paths": ["/a"]}}


def test_several_sources() -> None:
    also = ['postgres:{"server": "main"}', "redis"]
    assert _sources("files", {"paths": ["/a"]}, also) == {
        "sources": [
            {"plugin": "files", "options": {"paths": ["/a"]}},
            {"plugin": "postgres", "options": {"server": "main"}},
            {"plugin": "redis", "options": {}},
        ]
    }


@pytest.mark.parametrize("also", ["postgres:main", "postgres:[]", "postgres:", "postgres:{"])
def test_options_that_are_no_object(also: str) -> None:
    with pytest.raises(UsageError, match="is not PLUGIN:OPTIONS"):
        _sources("files", {}, [also])
