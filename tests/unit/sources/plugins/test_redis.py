"""What a server sends to a replica, however it comes in pieces; keys that expire while they are copied."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snappy.errors import SourceUnavailable
from snappy.sources.plugins.redis import MARK_BYTES, _Dump
from snappy.sources.plugins.redis_copy import Copy
from snappy.sources.plugins.redis_server import Session

MARK = bytes(range(MARK_BYTES))


class Pieces:
    """A session that gives these bytes, some at a time."""

    def __init__(self, data: bytes, cuts: Sequence[int]) -> None:
        self._file, self._cuts = io.BytesIO(data), iter(cuts)

    def readinto(self, buffer: memoryview) -> int:
        data = self._file.read(min(next(self._cuts, len(buffer)), len(buffer)))
        if not data:
            raise SourceUnavailable("the server closed the connection")
        buffer[: len(data)] = data
        return len(data)


def read(data: bytes, head: bytes, cuts: Sequence[int], buffer: int) -> bytes:
    return io.BufferedReader(_Dump(cast(Session, Pieces(data, cuts)), head), buffer).read()


contents = st.lists(st.sampled_from([b"x", MARK[:1], MARK[:20], MARK[20:], MARK[1:]])).map(b"".join)


@given(contents, st.lists(st.integers(1, 50)), st.sampled_from([1, 7, 64, 1000]))
def test_a_dump_is_all_that_comes_before_the_mark(content: bytes, cuts: list[int], buffer: int) -> None:
    content = content.replace(MARK, b"")
    assert read(content + MARK, b"$EOF:" + MARK, cuts, buffer) == content
    with pytest.raises(SourceUnavailable):
        read(content + MARK[:-1], b"$EOF:" + MARK, cuts, buffer)


@given(contents, st.lists(st.integers(1, 50)))
def test_a_dump_is_as_many_bytes_as_were_announced(content: bytes, cuts: list[int]) -> None:
    assert read(content + b"later", b"$%d" % len(content), cuts, 64) == content
    with pytest.raises(SourceUnavailable):
        read(content, b"$%d" % (len(content) + 1), cuts, 64)


class Answers:
    """A session that notes what it is asked."""

    def __init__(self, *answers: Any) -> None:
        self._answers, self.asked = iter(answers), list[Any]()

    def ask(self, *words: Any) -> Any:
        self.asked.append(words)
        return next(self._answers, b"OK")

    def ask_all(self, commands: Sequence[Any]) -> list[Any]:
        return [self.ask(*command) for command in commands]


def test_a_key_that_expires_while_it_is_copied_is_left_out() -> None:
    found = (b"OK", [b"0", [b"gone", b"last", b"kept"]], 50, 50, 50, -2, None, 0, b"1", -1, b"2")
    source, target = Answers(*found), Answers()
    Copy(cast(Session, source), cast(Session, target), b"p:").run({0: 3})
    restored = [("RESTORE", b"p:last", 1, b"1", "REPLACE"), ("RESTORE", b"p:kept", 0, b"2", "REPLACE")]
    assert target.asked == [("SELECT", 3), *restored]
