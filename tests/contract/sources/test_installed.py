"""A plug-in that somebody else wrote, installed by pip into a folder of its own: it is found, shown, and works.
One that is broken is left out, and the service runs all the same."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.stack import Shell

WHEEL = "snappy_echo-1.0-py3-none-any.whl"
ABOUT = {
    "METADATA": "Metadata-Version: 2.1\nName: snappy-echo\nVersion: 1.0\n",
    "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "RECORD": "",
    "entry_points.txt": "[snappy.sources]\necho = snappy_echo:Echo\nbroken = snappy_broken:Broken\n",
}
PLUGIN = '''
import io
from contextlib import asynccontextmanager
from typing import Annotated

import msgspec

from snappy.sources.made_up import folders_above, stream


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    word: Annotated[str, msgspec.Meta(description="what is said")]


class Restore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Echo:
    """Says a word again."""

    name = "echo"
    Options = Options
    RestoreOptions = Restore

    def __init__(self, options, site):
        self.word = options.word

    def claims(self):
        return ["echo://"]

    @asynccontextmanager
    async def snap(self):
        yield

    def export(self, frozen):
        yield from folders_above(b"/echo/word")
        yield stream(b"/echo/word", lambda: io.BytesIO(self.word.encode()))

    @classmethod
    def restore_claims(cls, options, site):
        return ["echo://"]

    @classmethod
    def import_(cls, options, claims, site):
        return Sink()


class Sink:
    def receive(self, path, node, content):
        return [b"".join(content).decode()]

    def finish(self):
        return []

    def close(self):
        pass
'''


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pip put it in."""
    wheel, into = tmp_path_factory.mktemp("wheel") / WHEEL, tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("snappy_echo.py", PLUGIN)
        packed.writestr("snappy_broken.py", "import no_such_module\n")
        for name, text in ABOUT.items():
            packed.writestr(f"snappy_echo-1.0.dist-info/{name}", text)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", into, wheel]
    subprocess.run(pip, check=True, capture_output=True, timeout=60)
    return into


def test_it_is_found_shown_and_works(installed: Path, tmp_path: Path) -> None:
    shell = Shell(tmp_path, environ={"PYTHONPATH": os.fspath(installed)})
    rows = {row["name"]: row for row in shell.run("plugins", "list", "--json").expect(0).json()}
    assert rows["echo"] == {"name": "echo", "package": "snappy-echo", "about": "Says a word again."}
    assert "no_such_module" in rows["broken"]["about"]
    assert "what is said" in shell.run("plugins", "show", "echo").expect(0).out
    assert shell.run("plugins", "check", "broken").expect(2).out.count("cannot be loaded") == 1
    made = ("backup", "--to", "./repo", "--init", "--plugin", "echo")
    shell.with_password(*made, "--option", "word=hello").expect(0)
    back = shell.with_password("restore", "latest", "--from", "./repo", "--plugin", "echo", "--json").expect(3).json()
    assert [warning["message"] for warning in back["result"]["warnings"]] == ["hello"]
    refused = shell.with_password(*made, "--option", "wird=hello").expect(4)
    assert "it has: word" in refused.err
