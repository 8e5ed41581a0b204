"""A real etcd server of one member on free ports of the loopback, and a journal in it."""

from __future__ import annotations

import json
import random
import secrets
import signal
import subprocess
import tempfile
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Self

from snappy.errors import SourceUnavailable
from snappy.sources.plugins.etcd_cluster import PLUGIN, Cluster, EtcdSettings, Member, in_base64, span
from snappy.sources.site import Site
from tests.support.background import repeated
from tests.support.mortal import die_with_parent
from tests.support.ports import held_ports

START_SECONDS = 30.0
FILLER = 256 << 10


class Etcd:
    """A running member, alone in its cluster. ``root`` may do everything, with ``password``, once :meth:`secure` was
    called."""

    def __init__(self, folder: Path, ports: list[int], words: tuple[str, ...], tls: dict[str, str]) -> None:
        self.folder, self._words = folder, words
        self.url, self.peer = (f"{'https' if tls else 'http'}://localhost:{ports[0]}", f"http://127.0.0.1:{ports[1]}")
        self.data = folder / "data"
        self.password = secrets.token_hex(8)
        self._process: subprocess.Popen[bytes] | None = None
        self._is_secured = False
        self._member = Member(EtcdSettings(url=self.url, ca=tls.get("cert", ""), **tls))

    @classmethod
    @contextmanager
    def running(cls, *words: str, tls: dict[str, str] | None = None) -> Iterator[Self]:
        """One that is empty."""
        with cls.prepared(*words, tls=tls) as server:
            server.start()
            yield server

    @classmethod
    @contextmanager
    def prepared(cls, *words: str, tls: dict[str, str] | None = None) -> Iterator[Self]:
        """The same, to be started later. ``words`` are further arguments, ``tls`` the files of a client's ``cert`` and
        ``key``, if it needs any."""
        with held_ports(2) as ports, tempfile.TemporaryDirectory(prefix="snappy-etcd-") as folder:
            server = cls(Path(folder), ports, words, tls or {})
            try:
                yield server
            finally:
                server.stop()

    def start(self) -> None:
        words = ["--data-dir", str(self.data), "--unsafe-no-fsync", "--logger", "zap", "--log-outputs", "stderr"]
        words += [
            "--listen-client-urls",
            self.url,
            "--advertise-client-urls",
            self.url,
            "--listen-peer-urls",
            self.peer,
        ]
        words += ["--initial-advertise-peer-urls", self.peer, "--initial-cluster", f"default={self.peer}", *self._words]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(["etcd", *words], stderr=log, stdout=log, preexec_fn=die_with_parent)
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                if self.member().ask("maintenance/status").get("leader", "0") != "0":
                    return
            except SourceUnavailable:
                pass
            if time.monotonic() > end or self._process.poll() is not None:
                raise AssertionError((self.folder / "log").read_text())
            time.sleep(0.05)

    def stop(self) -> None:
        """At once, as a crash would."""
        if self._process:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It answers nobody."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def secure(self) -> None:
        """From now on nobody does anything without a password."""
        member = self.member()
        member.ask("auth/user/add", name="root", password=self.password)
        member.ask("auth/role/add", name="root")
        member.ask("auth/user/grant", user="root", role="root")
        member.ask("auth/enable")
        self._is_secured = True
        self._member = Cluster(Site("test", {PLUGIN: self.named(self.folder)}), "main").connect()

    def named(self, folder: Path) -> dict[str, dict[str, Any]]:
        """Settings of the plug-in: ``main`` is right, a ``stranger`` has another password, and one is ``down``.
        Passwords lie in ``folder``."""
        right, wrong = (_secret(folder / name, text) for name, text in (("right", self.password), ("wrong", "wrong")))
        given = {"url": self.url, "user": "root"} if self._is_secured else {"url": self.url}
        return {
            "main": given | {"password": right},
            "stranger": given | {"password": wrong},
            "down": given | {"password": right, "url": "http://127.0.0.1:1"},
        }

    def member(self) -> Member:
        return self._member

    def put(self, *pairs: tuple[str, bytes], lease: str = "0") -> int:
        """In one transaction; returns its revision."""
        puts = [{"key": in_base64(key.encode()), "value": in_base64(value), "lease": lease} for key, value in pairs]
        done = self.member().ask("kv/txn", success=[{"request_put": put} for put in puts])
        return int(done["header"]["revision"])

    def found(self, prefix: str = "") -> dict[str, bytes]:
        begin, end = map(in_base64, span(prefix.encode()))
        found = self.member().ask("kv/range", key=begin, range_end=end).get("kvs", [])
        return {b64decode(each["key"]).decode(): b64decode(each.get("value", "")) for each in found}

    def empty(self) -> None:
        """Remove all keys, and what they were."""
        member = self.member()
        begin, end = map(in_base64, span(b""))
        done = member.ask("kv/deleterange", key=begin, range_end=end)
        if int(done.get("deleted", 0)):
            member.ask("kv/compaction", revision=done["header"]["revision"], physical=True)
            member.ask("maintenance/defragment")

    def leftovers(self) -> list[str]:
        """Keys under names of ours."""
        return list(self.found("snappy-restore/"))

    def lease_of(self, key: str) -> str:
        (found,) = self.member().ask("kv/range", key=in_base64(key.encode()))["kvs"]
        return str(found.get("lease", "0"))

    def status(self, path: Path) -> dict[str, Any]:
        """What etcd's own program says of a snapshot."""
        words = ["etcdctl", "snapshot", "status", str(path), "-w", "json"]
        said = subprocess.run(words, check=True, capture_output=True, env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"})
        return dict(json.loads(said.stdout))


class Journal:
    """Keys that are numbered as they are written, and one that says how many there are, beside filler that hardly
    compresses; all begin with ``prefix``."""

    def __init__(self, server: Etcd, prefix: str) -> None:
        self._server, self._prefix = server, prefix
        self._random = random.Random(1)

    def make(self, filler: int) -> None:
        self._write_filler(max(2, filler // FILLER))
        self._server.put((f"{self._prefix}last", b"-1"))

    def change(self, share: float) -> None:
        self._write_filler(int(len(self._server.found(f"{self._prefix}filler/")) * share) or 1)

    def writing(self) -> AbstractContextManager[Callable[[], int]]:
        """As fast as one client can; the value says how many were written."""
        return repeated(self._write)

    def check(self) -> None:
        found = self._server.found(self._prefix)
        numbers = sorted(int(name.rpartition("/")[2]) for name in found if "/log/" in name)
        assert numbers == list(range(int(found[f"{self._prefix}last"]) + 1))
        assert len([name for name in found if "/filler/" in name]) >= 2

    def content(self) -> dict[str, bytes]:
        found = self._server.found(self._prefix)
        return {name.removeprefix(self._prefix): value for name, value in found.items()}

    def _write(self, number: int) -> None:
        name = str(number).encode()
        self._server.put((f"{self._prefix}log/{number}", name), (f"{self._prefix}last", name))

    def _write_filler(self, count: int) -> None:
        for number in range(count):
            name = in_base64(f"{self._prefix}filler/{number}".encode())
            self._server.member().ask("kv/put", key=name, value=in_base64(self._random.randbytes(FILLER)))


def _secret(path: Path, text: str) -> dict[str, str]:
    path.write_text(text)
    path.chmod(0o600)
    return {"file": str(path)}
