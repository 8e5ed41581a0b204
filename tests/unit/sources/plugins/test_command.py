"""What the programs of the plug-in ``command`` are given, and what is told of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from snappy.errors import ProgramFailed, SourceError
from snappy.repository.entries import Node, StreamSink
from snappy.sources.plugins.command import CommandOptions, CommandRestore, CommandSource
from snappy.sources.site import Site
from tests.support.stack import secret

NODE = Node(name=b"output", type="file")


def site(**settings: Any) -> Site:
    return Site("site", {"command": {"default": settings}})


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def written(**settings: Any) -> bytes:
    *_, entry = CommandSource(CommandOptions(), site(**settings)).export(None)
    assert entry.open
    with entry.open() as file:
        return file.read()


def sink(**settings: Any) -> StreamSink:
    claims = CommandSource.restore_claims(CommandRestore(), site(**settings))
    return CommandSource.import_(CommandRestore(), claims, site(**settings))


def test_a_program_gets_its_folder_its_variables_and_its_secrets(tmp_path: Path) -> None:
    settings = {
        "backup": shell('echo "$PWD $WORD $HIDDEN"'),
        "folder": str(tmp_path),
        "environment": {"WORD": "plain"},
        "secrets": {"HIDDEN": {"file": str(secret(tmp_path / "secret", "whisper\n"))}},
    }
    assert written(**settings) == f"{tmp_path} plain whisper\n".encode()


def test_the_file_is_called_as_the_settings_say() -> None:
    source = CommandSource(CommandOptions(), site(backup=["true"], filename="all.ldif"))
    assert [entry.path for entry in source.export(None)] == [
        b"/command",
        b"/command/default",
        b"/command/default/all.ldif",
    ]


def test_a_program_that_waits_is_ended_when_nobody_wants_it_any_more() -> None:
    source = CommandSource(CommandOptions(), site(backup=["sleep", "60"]))
    *_, entry = source.export(None)
    assert entry.open
    with entry.open() as file:
        threading.Timer(0.2, source.interrupt).start()
        began = time.monotonic()
        with pytest.raises(ProgramFailed):
            file.read()
    assert time.monotonic() - began < 20


def test_a_restore_takes_one_file(tmp_path: Path) -> None:
    with closing(sink(restore=shell(f"cat > {tmp_path}/got"))) as given:
        with pytest.raises(SourceError, match="no file"):
            given.finish()
        given.receive(b"/one", NODE, iter([b"a", b"b"]))
        with pytest.raises(SourceError, match="one file"):
            given.receive(b"/two", NODE, iter([b"c"]))
        given.finish()
    assert (tmp_path / "got").read_bytes() == b"ab"


def test_what_does_not_come_whole_is_not_finished(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"a part"
        raise SourceError("the rest is lost")

    script = f"cat > {tmp_path}/got; touch {tmp_path}/whole"
    with closing(sink(restore=shell(script))) as given, pytest.raises(SourceError, match="lost"):
        given.receive(b"/one", NODE, broken())
    time.sleep(0.1)
    assert not (tmp_path / "whole").exists()
