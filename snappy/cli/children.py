"""A process for each role: what one holds, the others cannot read.

A child is told its role and its own section of the configuration on standard input, which stays open: when it ends,
the parent is gone, and the child stops too. It inherits no variable but those named here and those that its own
secrets name.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from snappy import log, serve
from snappy.config import Secret
from snappy.errors import SnappyError

INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR")
STORAGE = ("AWS_", "AZURE_", "GOOGLE_", "FSSPEC_")
"""Where storage libraries look for credentials: a target's to have."""
STOP_SECONDS = 30.0

_log = log.get(__name__)


async def run(host: serve.Host, roles: list[serve.Role]) -> None:
    """Run each role in a process of its own until cancelled. Raises SnappyError when one ends by itself."""
    async with asyncio.TaskGroup() as group:
        for role in roles:
            group.create_task(_keep(host, role))


async def _keep(host: serve.Host, role: serve.Role) -> None:
    start = told(host, role)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "snappy.cli.child", *str(role).split()),  # the name is for who looks with `ps`
        stdin=PIPE,
        env=environment(role, start, os.environ),
    )
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(start) + b"\n")
    try:
        status = await process.wait()
    finally:
        await _stop(process, role)
    raise SnappyError(f"the process of the {role} ended with status {status}", hint="what it said stands above")


async def _stop(process: Process, role: serve.Role) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        _log.warning("a process did not stop in time", role=str(role))
        process.kill()
        await process.wait()


def told(host: serve.Host, role: serve.Role) -> serve.ChildStart:
    """What the role's process may know."""
    return serve.ChildStart(
        kind=role.kind,
        name=role.name,
        config=serve.narrowed(host.config, role, host.way(role)),
        signing_key=host.signing_key if role.kind == "core" else "",
        public_key=host.public_key if role.kind == "target" else "",
    )


def environment(role: serve.Role, start: serve.ChildStart, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that the role's process inherits."""
    named = {*INHERITED, *(secret.env for secret in _secrets(start.config) if secret.env)}
    prefixes = ("LC_", *(STORAGE if role.kind == "target" else ()))
    return {name: value for name, value in environ.items() if name in named or name.startswith(prefixes)}


def _secrets(value: Any) -> Iterator[Secret]:
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _secrets(getattr(value, name))
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _secrets(inner)
