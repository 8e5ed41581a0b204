"""What a restore to S3 asks of a bucket, in which order, and what it leaves alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, cast

import pytest

from snappy.errors import BadOptions, Damaged, SourceError, SourceUnavailable
from snappy.repository.entries import Node
from snappy.sources.plugins import s3_sink
from snappy.sources.plugins.s3_bucket import DELETED, Bucket
from snappy.sources.plugins.s3_sink import S3Sink

HISTORY, OBJECTS = b"/s3/main/data/history/", b"/s3/main/data/objects/"


class Upload:
    """An object that is written in parts."""

    closed = False

    def __init__(self) -> None:
        self.data, self.end = b"", ""

    def open(self, *_: Any, **__: Any) -> Upload:
        return self

    def write(self, data: bytes) -> None:
        self.data += data

    def discard(self) -> None:
        self.end = "discarded"

    def close(self) -> None:
        self.end = "whole"


class Objects:
    """A bucket, in which what is ``first`` takes long."""

    name = "data"

    def __init__(self, *, keeps: bool = True, **objects: bytes) -> None:
        self.fs = Upload()
        self.objects, self.written, self._keeps = objects, list[tuple[str, bytes]](), keeps

    def require_versions(self) -> None:
        if not self._keeps:
            raise BadOptions("it keeps no versions")

    def call(self, operation: str, *, Key: str, Body: bytes = b"-", **_: Any) -> None:  # noqa: N803
        time.sleep(0.2 if Body == b"first" else 0)
        if Body == b"refused":
            raise SourceUnavailable("refused")
        self.written.append((Key, Body))

    def about(self, objects: list[tuple[str, str]], *, tags: bool) -> list[Any]:
        ((key, _),) = objects
        return [({"ContentLength": len(self.objects[key])}, {}) if key in self.objects else FileNotFoundError(key)]

    def read(self, key: str, Range: str = "bytes=0-99") -> bytes:  # noqa: N803
        first, last = map(int, Range.removeprefix("bytes=").split("-"))
        return self.objects[key][first : last + 1]


def sink_of(bucket: Objects, *, overwrite: bool = False, versions: bool = True) -> S3Sink:
    return S3Sink(cast(Bucket, bucket), "", overwrite=overwrite, versions=versions)


def receive(sink: S3Sink, path: bytes, data: bytes, **node: Any) -> None:
    sink.receive(path, Node(name=b"x", type="file", size=len(data), **node), iter([data]))


def test_versions_of_an_object_are_written_one_after_the_other() -> None:
    bucket = Objects()
    sink = sink_of(bucket)
    receive(sink, HISTORY + b"a/1-0-v1", b"first")
    receive(sink, HISTORY + b"a/2-0-v2", b"", xattrs={DELETED: b"1"})
    receive(sink, HISTORY + b"a/3-0-v3", b"third")
    receive(sink, OBJECTS + b"a", b"last")
    sink.finish()
    sink.close()
    assert bucket.written == [("a", b"first"), ("a", b"-"), ("a", b"third"), ("a", b"last")]


def test_an_object_that_was_not_written_fails_the_restore() -> None:
    sink = sink_of(Objects())
    receive(sink, OBJECTS + b"a", b"refused")
    with pytest.raises(SourceUnavailable):
        sink.finish()
    sink.close()


@pytest.mark.parametrize("standing", [b"other", b"longer than it"])
def test_another_object_stays(standing: bytes) -> None:
    bucket = Objects(a=standing, b=b"equal")
    sink = sink_of(bucket)
    receive(sink, OBJECTS + b"b", b"equal")
    receive(sink, OBJECTS + b"a", b"bytes")
    with pytest.raises(SourceError, match="another object a"):
        sink.finish()
    sink.close()
    assert bucket.written == [("b", b"equal")]


def test_another_object_is_replaced_if_that_is_asked_for() -> None:
    bucket = Objects(a=b"other")
    sink = sink_of(bucket, overwrite=True)
    receive(sink, OBJECTS + b"a", b"bytes")
    sink.finish()
    sink.close()
    assert bucket.written == [("a", b"bytes")]


@pytest.mark.parametrize(
    ("standing", "end"), [("abcd", "whole"), ("abxd", "discarded"), ("", "whole"), ("ab", "discarded")]
)
def test_a_large_object_is_written_whole_or_not_at_all(
    standing: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_sink, "WHOLE", 3)
    bucket = Objects(**({"a": standing.encode()} if standing else {}))
    sink = sink_of(bucket)
    with pytest.raises(SourceError, match="another object a") if end == "discarded" else nullcontext():
        sink.receive(OBJECTS + b"a", Node(name=b"a", type="file", size=4), iter([b"ab", b"cd"]))
    assert bucket.fs.end == end


def test_a_large_object_whose_content_is_lost_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> Iterator[bytes]:
        yield b"ab"
        raise Damaged("lost")

    monkeypatch.setattr(s3_sink, "WHOLE", 3)
    bucket = Objects()
    with pytest.raises(Damaged):
        sink_of(bucket).receive(OBJECTS + b"a", Node(name=b"a", type="file", size=4), lost())
    assert bucket.fs.end == "discarded"


def test_former_versions_are_written_where_nothing_is_lost() -> None:
    bucket = Objects(keeps=False, a=b"standing")
    with pytest.raises(BadOptions):
        receive(sink_of(bucket), HISTORY + b"a/1-0-v1", b"former")
    receive(sink_of(bucket, versions=False), HISTORY + b"a/1-0-v1", b"former")
    assert bucket.written == []
    sink = sink_of(bucket, overwrite=True)
    receive(sink, HISTORY + b"a/1-0-v1", b"former")
    sink.finish()
    assert bucket.written == [("a", b"former")]
