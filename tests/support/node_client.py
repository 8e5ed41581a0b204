"""Runs tests/support/node/client.mjs: a client in Node, on `@nats-io/transport-node` from npm."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).with_name("node")


def install(folder: Path, sources: Path = SOURCES) -> Path:
    """Copies a program's ``sources`` to ``folder`` and has npm bring what its lock file names. Returns ``folder``."""
    shutil.copytree(sources, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    return folder


async def submit(
    folder: Path, url: str, subject: str, command: dict[str, Any], user: str = "", password: str = ""
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Has the client in ``folder`` publish the command and wait for the job's end: the receipt, and the last event."""
    settings = {"PATH": os.environ["PATH"], "NATS_URL": url, "NATS_USER": user, "NATS_PASSWORD": password}
    process = await asyncio.create_subprocess_exec(
        "node",
        str(folder / "client.mjs"),
        subject,
        json.dumps(command),
        env=settings,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        told, failure = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, failure.decode()
    receipt, event = map(json.loads, told.splitlines())
    return receipt, event
