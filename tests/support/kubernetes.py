"""A real API server of Kubernetes with its etcd on free ports of the loopback, without nodes or controllers."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from _pytest.outcomes import Failed

from tests.support import tools
from tests.support.certificates import make_certificate
from tests.support.mortal import die_with_parent
from tests.support.ports import held_ports

START_SECONDS = 90.0
TOKEN = "right"
LIMITED = "limited"
"""May list namespaces and no more."""


class KubernetesServer:
    """Made by :func:`running`. ``path`` of requests begins with ``/api``."""

    def __init__(self, folder: Path, url: str, ca: str = "") -> None:
        self.folder, self.url, self.ca = folder, url, ca
        for name in (TOKEN, LIMITED, "wrong"):
            (folder / name).write_text(name)
            (folder / name).chmod(0o600)

    def settings(self, token: str = TOKEN, **others: Any) -> dict[str, Any]:
        """Of a source service."""
        ca = {"ca": self.ca} if self.ca else {}
        return {"url": self.url, **ca, "token": {"file": str(self.folder / token)}, **others}

    def kubeconfig(self, **user: str) -> dict[str, Any]:
        """Of a source service: the settings for a kubeconfig with such a user."""
        cluster = {"server": self.url, "certificate-authority": self.ca}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": "who", "user": user}],
            "contexts": [{"name": "chosen", "context": {"cluster": "here", "user": "who", "namespace": "default"}}],
        }
        file = self.folder / "kubeconfig"
        file.write_text(json.dumps(config))
        return {"kubeconfig": str(file), "context": "chosen"}

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Raises ``urllib.error.HTTPError``."""
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        context = ssl.create_default_context(cafile=self.ca) if self.ca else None
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            found: dict[str, Any] = json.load(answer)
            return found


async def eventually(work: Callable[[], object]) -> None:
    """Until it does not fail any more."""
    async with asyncio.timeout(30):
        while True:
            try:
                work()
                return
            except (urllib.error.HTTPError, AssertionError, Failed):
                await asyncio.sleep(0.2)


@contextmanager
def running(folder: Path) -> Iterator[KubernetesServer]:
    """With its files in ``folder``."""
    program = tools.kube_apiserver()
    assert program
    (folder / "tokens.csv").write_text(f'{TOKEN},admin,1,"system:masters"\n{LIMITED},limited,2\n')
    make_certificate(folder, "/O=system:masters/CN=admin")
    key = ["openssl", "genrsa", "-out", str(folder / "account.key"), "2048"]
    subprocess.run(key, check=True, capture_output=True)
    with held_ports(3) as ports:
        client, peer, secure = ports
        with (
            _process(folder, _etcd(folder, client, peer)),
            _process(folder, _apiserver(program, folder, client, secure)),
        ):
            server = KubernetesServer(folder, f"https://127.0.0.1:{secure}", str(folder / "certs" / "apiserver.crt"))
            _await(server)
            yield server


@contextmanager
def _process(folder: Path, command: Sequence[str]) -> Iterator[None]:
    with (folder / f"{Path(command[0]).name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, preexec_fn=die_with_parent)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _etcd(folder: Path, client: int, peer: int) -> list[str]:
    clients, peers = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    return [
        "etcd",
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={clients}",
        f"--advertise-client-urls={clients}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
        "--unsafe-no-fsync",
    ]


def _apiserver(program: str, folder: Path, etcd: int, port: int) -> list[str]:
    return [
        program,
        f"--etcd-servers=http://127.0.0.1:{etcd}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={folder / 'certs'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        f"--client-ca-file={folder / 'cert'}",
        f"--service-account-key-file={folder / 'account.key'}",
        f"--service-account-signing-key-file={folder / 'account.key'}",
        "--service-account-issuer=https://kubernetes.invalid",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.96.0.0/24",
        "--disable-admission-plugins=ServiceAccount",
        "--endpoint-reconciler-type=none",
        "--advertise-address=127.0.0.1",
    ]


def _await(server: KubernetesServer) -> None:
    """Until it answers, and has the namespace that it makes for all that name none."""
    deadline = monotonic() + START_SECONDS
    while monotonic() < deadline:
        with suppress(OSError, urllib.error.URLError):
            server.ask("GET", "/api/v1/namespaces/default")
            return
        sleep(0.2)
    raise RuntimeError("kube-apiserver did not start:\n" + (server.folder / "kube-apiserver.log").read_text()[-4000:])
