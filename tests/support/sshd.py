"""OpenSSH's server on the loopback, with a key of its own and one user key that it lets in."""

from __future__ import annotations

import getpass
import os
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from tests.support import tools
from tests.support.mortal import die_with_parent
from tests.support.places import Place
from tests.support.ports import held_ports
from tests.support.restic import Restic

START_SECONDS = 20.0
CONFIGURATION = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
Subsystem sftp internal-sftp
"""


class Sshd:
    """Made by :func:`running`; it may be stopped and started again."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        for name in ("host", "user", "stranger"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
        (folder / "sshd_config").write_text(CONFIGURATION.format(folder=folder, port=port))
        host = " ".join((folder / "host.pub").read_text().split()[:2])
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host}\n")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # the empty folder that it shuts its unprivileged half into
        self.start()

    @property
    def options(self) -> dict[str, Any]:
        return {"client_keys": str(self.folder / "user"), "known_hosts": str(self.folder / "known_hosts")}

    @property
    def wrong(self) -> dict[str, Any]:
        """With the key of somebody who is not let in."""
        return {**self.options, "client_keys": str(self.folder / "stranger")}

    def url(self, place: Path) -> str:
        return f"sftp://{getpass.getuser()}@127.0.0.1:{self.port}{place}"

    def place(self, folder: Path) -> Place:
        return OverSshPlace(
            {"url": self.url(folder), **self.options},
            f"sftp:127.0.0.1:{folder}",
            {"SSH": self.command()},
        )

    def command(self) -> str:
        """What restic starts, instead of an ssh of its own choice."""
        options = ("IdentitiesOnly=yes", f"UserKnownHostsFile={self.folder}/known_hosts")
        words = ["ssh", "-F", "none", "-i", str(self.folder / "user"), "-p", str(self.port), "-l", getpass.getuser()]
        return shlex.join([*words, *(word for option in options for word in ("-o", option)), "127.0.0.1", "-s", "sftp"])

    def start(self) -> None:
        command = [str(tools.sshd()), "-D", "-e", "-f", str(self.folder / "sshd_config")]
        with (self.folder / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, preexec_fn=die_with_parent
            )
        deadline = monotonic() + START_SECONDS
        while not self._answers():
            assert monotonic() < deadline, (self.folder / "sshd.log").read_text()
            sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 2) as line:
                return line.recv(4) == b"SSH-"
        except OSError:
            return False

    def stop(self) -> None:
        """With SIGKILL, and all who serve a connection: they outlive the one that listens."""
        for process in (*_below(self._process.pid), self._process.pid):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()


class OverSshPlace(Place):
    """restic asks the same server."""

    def restic(self, program: str, password: str, cache: Path) -> Restic:
        return OverSsh(program, self.url, password, cache, self.environment["SSH"])


class OverSsh(Restic):
    def __init__(self, program: str, repository: str, password: str, cache: Path, command: str) -> None:
        super().__init__(program, repository, password, cache)
        self._command = command

    def attempt(self, *arguments: str | Path, cwd: str | Path | None = None) -> subprocess.CompletedProcess[bytes]:
        return super().attempt("-o", f"sftp.command={self._command}", *arguments, cwd=cwd)


def _below(process: int) -> list[int]:
    """The children of a process, and theirs."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [each for child in map(int, children) for each in (*_below(child), child)]


@contextmanager
def running(folder: Path) -> Iterator[Sshd]:
    """With its files in ``folder``, which is empty."""
    with held_ports(1) as (port,):
        server = Sshd(folder, port)
        try:
            yield server
        finally:
            server.stop()
