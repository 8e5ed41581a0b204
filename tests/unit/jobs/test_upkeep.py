"""Commands of upkeep: what makes no sense is refused when it is submitted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from snappy.errors import InvalidCommand
from snappy.jobs.kinds import parse_command
from snappy.jobs.upkeep import ForgetCommand


def forget(**fields: Any) -> ForgetCommand:
    body = json.dumps({"source": "site1", "target": "vault", **fields}).encode()
    command = parse_command("forget", body)
    assert isinstance(command, ForgetCommand)
    return command


@pytest.mark.parametrize(
    "fields",
    [
        {"keep_last": 1},
        {"keep_yearly": "unlimited"},
        {"keep_within": "1y5m7d2h", "group_by": ""},
        {"keep_within_weekly": "1d1d", "keep_last": 0},
        {"keep_tags": [""], "group_by": "tags,host,path"},
        {"unsafe_allow_remove_all": True, "paths": ["/srv"]},
        {"snapshots": ["0123abcd", "ab" * 32]},
    ],
)
def test_a_policy_or_names(fields: dict[str, Any]) -> None:
    assert forget(**fields).dry_run is False


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({}, "no policy"),
        ({"keep_last": 0, "keep_within": "0d0h"}, "no policy"),
        ({"hosts": ["north"]}, "no policy"),
        ({"unsafe_allow_remove_all": True}, "needs hosts, tags or paths"),
        ({"snapshots": ["0123abcd"], "keep_last": 1}, "are named"),
        ({"snapshots": ["0123abcd"], "tags": ["a"]}, "are named"),
        ({"snapshots": ["0123abc"]}, "snapshots"),
        ({"snapshots": ["latest"]}, "snapshots"),
        ({"keep_last": -1}, "keep_last"),
        ({"keep_last": "all"}, "keep_last"),
        ({"keep_within": "5w"}, "keep_within"),
        ({"keep_within": "-5d"}, "keep_within"),
        ({"keep_last": 1, "group_by": "size"}, "group_by"),
        ({"keep_latest": 1}, "keep_latest"),
    ],
)
def test_what_makes_no_sense(fields: dict[str, Any], fault: str) -> None:
    with pytest.raises(InvalidCommand, match=fault):
        forget(**fields)
