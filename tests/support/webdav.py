"""A WebDAV server on the loopback: `rclone serve webdav`, on a folder."""

from __future__ import annotations

import base64
import secrets
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from tests.support import tools
from tests.support.mortal import die_with_parent
from tests.support.places import Place
from tests.support.ports import held_ports
from tests.support.restic import Restic

START_SECONDS = 20.0
USER = "snappy"


class WebDav:
    """Made by :func:`running`; it may be stopped and started again."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self._port = folder, port
        self.program, self._password = str(tools.rclone()), secrets.token_hex(8)
        (folder / "served").mkdir()
        self.start()

    def place(self) -> Place:
        options = {"username": USER, "password": self._password}
        return OverRclonePlace(
            {"url": f"webdav://127.0.0.1:{self._port}/site1", **options},
            "rclone:dav:site1",
            {
                "RCLONE_CONFIG": str(self.folder / "rclone.conf"),
                "RCLONE_CONFIG_DAV_TYPE": "webdav",
                "RCLONE_CONFIG_DAV_URL": self._url,
                "RCLONE_CONFIG_DAV_USER": USER,
                "RCLONE_CONFIG_DAV_PASS": self._obscured(),
                "RCLONE_PROGRAM": self.program,
            },
        )

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def _obscured(self) -> str:
        command = [self.program, "obscure", self._password]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def start(self) -> None:
        command = [self.program, "serve", "webdav", "--config", str(self.folder / "rclone.conf")]
        command += ["--addr", f"127.0.0.1:{self._port}", "--user", USER, "--pass", self._password]
        with (self.folder / "rclone.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, str(self.folder / "served")], stdout=log, stderr=log, preexec_fn=die_with_parent
            )
        deadline = monotonic() + START_SECONDS
        while not self._answers():
            assert monotonic() < deadline, (self.folder / "rclone.log").read_text()
            sleep(0.02)

    def _answers(self) -> bool:
        known = base64.b64encode(f"{USER}:{self._password}".encode()).decode()
        try:
            asked = urllib.request.Request(f"{self._url}/", headers={"Authorization": f"Basic {known}"})
            urllib.request.urlopen(asked, timeout=2).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


class OverRclonePlace(Place):
    """restic asks the same server, through rclone."""

    def restic(self, program: str, password: str, cache: Path) -> Restic:
        return OverRclone(program, self.url, password, cache, **self.environment)


class OverRclone(Restic):
    def attempt(self, *arguments: str | Path, cwd: str | Path | None = None) -> subprocess.CompletedProcess[bytes]:
        return super().attempt("-o", f"rclone.program={self.environment['RCLONE_PROGRAM']}", *arguments, cwd=cwd)


@contextmanager
def running(folder: Path) -> Iterator[WebDav]:
    """With its files in ``folder``, which is empty."""
    with held_ports(1) as (port,):
        server = WebDav(folder, port)
        try:
            yield server
        finally:
            server.stop()
