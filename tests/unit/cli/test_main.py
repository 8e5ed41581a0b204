"""The command's frame: exit codes, JSON errors, the warning of the other package, and what is not loaded."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from importlib import metadata

import pytest

from snappy import __version__, log
from snappy.cli import main as module
from snappy.cli import output
from snappy.cli.main import main
from snappy.cli.status import BROKEN
from snappy.error_codes import BY_CODE
from snappy.errors import NoSpace, UsageError, WrongPassword

COMMANDS = "up core source target audit init backup restore snapshots jobs events schedule services keygen version"


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(_arguments: object) -> int:
        raise error

    monkeypatch.setattr(module, "_version", run)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"snappy {__version__}\n"
    assert main(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"version": __version__}


def test_an_error_class_is_an_exit_code_a_sentence_and_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, NoSpace("the disk is full"))
    assert main(["--json", "version"]) == NoSpace.exit_code
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {
        "error": {"code": "no-space", "message": "the disk is full", "hint": NoSpace.hint, "retryable": False}
    }
    assert printed.err == f"snappy: the disk is full\nhint: {NoSpace.hint}\n"


def test_an_error_in_groups_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = BaseExceptionGroup("inner", [ValueError(), WrongPassword()])
    raising(monkeypatch, BaseExceptionGroup("outer", [asyncio.CancelledError(), inner]))
    assert main(["version"]) == WrongPassword.exit_code


@pytest.mark.parametrize("error", [KeyboardInterrupt(), asyncio.CancelledError()])
def test_an_interrupt_is_130(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    raising(monkeypatch, error)
    assert main(["version"]) == 130


def test_a_bug_is_told_as_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    raising(monkeypatch, ZeroDivisionError("oops"))
    assert main(["version"]) == 1
    assert "unexpected ZeroDivisionError: oops" in capsys.readouterr().err


def test_a_reader_that_went_away_is_no_error_to_shout_about() -> None:
    script = "import sys; from snappy.cli.main import main; sys.exit(main(['version']))"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 1


@pytest.mark.parametrize("error", [BaseExceptionGroup("outer", [output.ReaderLeft()]), NoSpace("told as JSON")])
def test_a_reader_that_went_away_is_none_wherever_that_shows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    read, write = os.pipe()
    os.close(read)
    raising(monkeypatch, error)
    with open(write, "w") as pipe, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", pipe)
        assert main(["version", "--json"]) == 1
    assert capsys.readouterr().err == ""


def test_every_exit_code_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    told = {int(number) for number in re.findall(r"^  (\d+) ", capsys.readouterr().out, re.MULTILINE)}
    of_errors = {kind.exit_code for kind in BY_CODE.values()}
    assert of_errors.isdisjoint({0, 3, BROKEN})
    assert of_errors | {0, 3, BROKEN} == told


def test_each_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS.split():
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0
        assert name in capsys.readouterr().out


def test_a_typing_error_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["backupp"])
    assert ended.value.code == UsageError.exit_code
    assert "backup" in capsys.readouterr().err


def test_a_typing_error_is_told_in_two_lines_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["snapshots", "--json"])
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 2
    assert "`snappy snapshots --help`" in printed.err
    assert json.loads(printed.out)["error"]["message"] == "the following arguments are required: --from"


def test_more_is_told_when_asked_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(_arguments: object) -> int:
        log.get("snappy").info("something happened")
        return 0

    monkeypatch.setattr(module, "_version", run)
    for words, told in (([], ""), (["-v"], "info: something happened\n"), (["--log-level", "error"], "")):
        assert main(["version", *words]) == 0
        assert main([*words, "version"]) == 0
        assert capsys.readouterr().err == told * 2


def test_the_other_package_is_warned_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().err == ""
    real = metadata.distribution
    monkeypatch.setattr(metadata, "distribution", lambda name: None if name == "python-snappy" else real(name))
    assert main(["version"]) == 0
    warning = capsys.readouterr().err
    assert "python-snappy is installed" in warning
    assert "pip uninstall python-snappy" in warning


def test_the_core_loads_neither_engine_nor_storage() -> None:
    """What `snappy core run` imports: the command line, the frame of roles, the core."""
    script = (
        "import sys, snappy.cli.main, snappy.serve, snappy.jobs.core, snappy.jobs.audit\n"
        "print([name for name in sys.modules if name.startswith(('snappy.repository', 'fsspec', 's3fs'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
