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


def install(folder: Path) -> Path:
    """Copies the client into ``folder`` and has npm bring what its lock file names. Returns the program."""
    for name in ("package.json", "package-lock.json", "client.mjs"):
        shutil.copy(SOURCES / name, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "client.mjs"


async def submit(
    program: Path, url: str, subject: str, command: dict[str, Any], user: str = "", password: str = ""
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Publishes the command and waits for the job's end: JetStream's receipt and the last event."""
    settings = {"PATH": os.environ["PATH"], "NATS_URL": url, "NATS_USER": user, "NATS_PASSWORD": password}
    process = await asyncio.create_subprocess_exec(
        "node",
        str(program),
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
