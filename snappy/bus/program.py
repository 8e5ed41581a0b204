"""Finds the nats-server program and starts it so that it cannot outlive the process that asked for it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from snappy.errors import UsageError

OLDEST = (2, 14)
PROGRAM = "SNAPPY_NATS_SERVER"

_INSTALL = "pip install 'snappy-backup[embedded]', or set SNAPPY_NATS_SERVER to a newer one"
_TIED = """\
exec 3<&0
(cat <&3 >/dev/null; kill -TERM -$$) &
exec 3<&- "$@" </dev/null
"""
"""The shell becomes the server. What it leaves behind waits for the end of standard input, which the kernel brings
about however the parent ends, and then signals the session: the number of a session is not given away while one of
its processes lives, so that no stranger is hit."""


def find(environ: Mapping[str, str]) -> str:
    """The path of a nats-server that is new enough: named by SNAPPY_NATS_SERVER, else on PATH, else the wheel's.

    Raises UsageError, naming what was found.
    """
    old = []
    for path in _candidates(environ):
        version = version_of(path)
        if version >= OLDEST:
            return path
        old.append(f"{path} is {'.'.join(map(str, version)) or 'no nats-server'}")
    if old:
        raise UsageError(f"nats-server {OLDEST[0]}.{OLDEST[1]} or newer is needed: {'; '.join(old)}", hint=_INSTALL)
    raise UsageError("there is no nats-server here", hint=_INSTALL)


def _candidates(environ: Mapping[str, str]) -> Iterator[str]:
    named = environ.get(PROGRAM)
    if named:
        yield named
        return
    found = [shutil.which("nats-server", path=environ.get("PATH", os.defpath))]
    found.append(shutil.which("nats-server", path=str(Path(sys.executable).parent)))
    yield from dict.fromkeys(path for path in found if path)


def version_of(path: str) -> tuple[int, ...]:
    """Major and minor; empty when it is no nats-server."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    match = re.search(r"nats-server: v(\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2])) if match else ()


async def spawn(program: str, *arguments: str, log_file: Path, keep_open: int) -> asyncio.subprocess.Process:
    """Start it in a session of its own, so that Ctrl-C on the terminal leaves it to its parent.

    It ends when ``process.stdin`` is closed, by us or by our death. ``keep_open`` is a file descriptor (of a lock)
    that lives as long as it does.
    """
    with log_file.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            _TIED,
            "nats-server",
            program,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=(keep_open,),
            start_new_session=True,
        )
