"""A range of an object in an object store costs the requests and the bytes that it has to."""

from __future__ import annotations

import os

import pytest

from snappy.targets import ranges
from snappy.targets.policy import PolicyFileSystem
from snappy.targets.ranges import RemoteRange
from tests.support.engine import PrivateMemory

CONTENT = os.urandom(1000)


class Bucket(PrivateMemory):
    """Like an object store: without directories, and each read is a request."""

    async_impl = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, int]] = []
        self.pipe_file("/bucket/object", CONTENT)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: object) -> bytes:
        assert start is not None
        assert end is not None
        self.asked.append((start, end))
        data: bytes = super().cat_file(path, start=start, end=end)
        return data


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "BLOCK", 100)


def test_what_is_read_in_order_is_fetched_once_and_no_further(bucket: Bucket) -> None:
    file = RemoteRange(bucket, "/bucket/object", 50, 320)
    file.seek(50)
    parts = [file.read(min(30, 320 - place)) for place in range(50, 320, 30)]
    assert b"".join(parts) == CONTENT[50:320]
    assert bucket.asked == [(50, 150), (150, 250), (250, 320)]


def test_any_part_can_be_read_again(bucket: Bucket) -> None:
    file = RemoteRange(bucket, "/bucket/object", 0, 1000)
    for place, size in [(0, 250), (40, 20), (990, 10), (0, 1000), (995, 100)]:
        file.seek(place)
        assert file.read(size) == CONTENT[place : place + size]


def test_an_object_that_ends_early_gives_what_there_is(bucket: Bucket) -> None:
    file = RemoteRange(bucket, "/bucket/object", 950, 1200)
    assert file.read(200) == CONTENT[950:]
    assert file.read(1) == b""


def test_a_target_in_an_object_store_fetches_the_range_alone(bucket: Bucket) -> None:
    file = PolicyFileSystem(bucket, "/bucket").open_range("object", 200, 90)
    file.seek(210)
    assert file.read(80) == CONTENT[210:290]
    assert bucket.asked == [(210, 290)]
    file.close()
