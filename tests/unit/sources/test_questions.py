"""The list of snapshots, page by page."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from snappy.errors import SnapshotNotFound
from snappy.jobs.api_words import Reply
from snappy.sources import questions


def test_snapshots_that_do_not_fit_are_cut_at_the_old_end_and_said_to_be() -> None:
    everything = [{"id": str(number), "paths": ["/" + "x" * 200]} for number in range(40)]
    pages: list[dict[str, Any]] = []
    more, before = True, ""
    while more:
        body = questions.fitting(Reply(snapshots=questions.older(everything, before)), 4096)
        assert len(body) <= 4096
        reply = msgspec.json.decode(body, type=Reply)
        assert reply.snapshots
        pages, more, before = reply.snapshots + pages, reply.more, reply.snapshots[0]["id"]
    assert pages == everything


def test_a_page_after_a_snapshot_that_is_gone_is_refused() -> None:
    with pytest.raises(SnapshotNotFound, match="gone"):
        questions.older([{"id": "there"}], "gone")
