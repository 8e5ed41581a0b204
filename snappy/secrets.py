"""Reads a secret from where the configuration says it is: a file, the environment or a command's output."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

from snappy import log
from snappy.config import Secret
from snappy.errors import UsageError

COMMAND_SECONDS = 30.0

_log = log.get(__name__)


def read(secret: Secret, environ: Mapping[str, str] | None = None) -> str:
    """The secret, without one newline at its end. Raises UsageError, which never holds the secret."""
    if secret.file:
        text = _from_file(Path(secret.file).expanduser())
    elif secret.env:
        text = _from_environment(secret.env, os.environ if environ is None else environ)
    else:
        text = _from_command(secret.command)
    return text.removesuffix("\n").removesuffix("\r")


def _from_file(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the secret file {path} cannot be read: {_reason(error)}") from error
    if stat.S_ISREG(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO) & ~stat.S_IRGRP:
        _log.warning("a secret file is open to others", path=str(path), hint=f"chmod 600 {path}")
    return text


def _from_environment(name: str, environ: Mapping[str, str]) -> str:
    if name not in environ:
        raise UsageError(f"the environment variable {name} is not set")
    return environ[name]


def _from_command(command: str) -> str:
    """Run without a shell, so that nothing in the configuration is expanded."""
    try:
        words = shlex.split(command)
        done = subprocess.run(words, capture_output=True, timeout=COMMAND_SECONDS, check=False, text=True)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"the secret command {command!r} cannot be run: {_reason(error)}") from error
    if done.returncode:
        raise UsageError(f"the secret command {command!r} ended with status {done.returncode}")
    return done.stdout


def _reason(error: Exception) -> str:
    """Why, without a word of what was read."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return {"UnicodeDecodeError": "it is not UTF-8", "TimeoutExpired": f"it took over {COMMAND_SECONDS:.0f} s"}.get(
        type(error).__name__, str(error)
    )
