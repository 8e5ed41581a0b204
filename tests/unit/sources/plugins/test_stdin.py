"""Standard input is read once, to its end or until nobody waits for it any more."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import pytest

from snappy.errors import BadOptions, ProgramFailed, SourceError
from snappy.sources.plugins.stdin import StdinOptions, StdinSource
from snappy.sources.site import NOWHERE, Site


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Iterator[BinaryIO]:
    """The other end of what is this process's standard input."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin, os.fdopen(writing, "wb", buffering=0) as writer:
        monkeypatch.setattr(sys, "__stdin__", stdin)
        monkeypatch.setattr(StdinSource, "_taken", threading.Lock())
        yield cast(BinaryIO, writer)


def source(filename: str = "stdin", **settings: Any) -> StdinSource:
    return StdinSource(StdinOptions(filename), Site("here", {"stdin": {"default": settings}}))


def opened(source: StdinSource) -> BinaryIO:
    *_, entry = source.export(None)
    assert entry.open
    return entry.open()


def test_it_is_read_to_its_end_and_not_twice(writer: BinaryIO) -> None:
    writer.write(b"all of it")
    writer.close()
    with opened(source()) as file:
        assert file.read() == b"all of it"
    with pytest.raises(SourceError, match="read a part"):
        opened(source())


def test_waiting_for_it_ends_when_nobody_wants_it_any_more(writer: BinaryIO) -> None:
    waiting = source()
    with opened(waiting) as file:
        threading.Timer(0.2, waiting.interrupt).start()
        with pytest.raises(SourceError, match="interrupted"):
            file.read()


def test_what_a_program_writes_is_kept_if_it_ends_well() -> None:
    with opened(source(command=["echo", "said"])) as file:
        assert file.read() == b"said\n"
    with opened(source(command=["false"])) as file, pytest.raises(ProgramFailed):
        file.read()


@pytest.mark.parametrize(("name", "path"), [("a", "/a"), ("/b/c", "/b/c"), ("../d//e/", "/d/e")])
def test_it_is_called_as_is_said(name: str, path: str) -> None:
    assert source(name).claims() == [path]


def test_no_job_reads_the_standard_input_of_a_service_that_says_nothing_of_it() -> None:
    with pytest.raises(BadOptions, match="has no stdin"):
        StdinSource(StdinOptions(), NOWHERE)
