"""What the contract of source plug-ins does with a cluster: config maps and secrets that are written in pairs."""

from __future__ import annotations

import base64
import hashlib
import random
import urllib.error
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tests.support.background import repeated
from tests.support.kubernetes import LIMITED, KubernetesServer
from tests.support.source_contract import Refused

DATA, BACK = "data", "back"
ROOM = 300_000
"""Bytes that a config map holds."""
PAIRS = 5


class KubernetesGround:
    """Of each pair the secret is written after the config map: at no moment is it ahead, or more than one behind."""

    plugin = "kubernetes"
    changes_share = 0.2
    works_in_folder = True

    def __init__(self, server: KubernetesServer) -> None:
        self.server = server
        self._random, self._count, self._written = random.Random(1), 0, 0
        for name in (DATA, BACK):
            namespace = {"metadata": {"name": name, "labels": {"team": "shop"}}}
            server.ask("POST", "/api/v1/namespaces", namespace)

    def settings(self) -> dict[str, dict[str, Any]]:
        right = self.server.settings()
        return {
            "main": right,
            "wrong": self.server.settings("wrong"),
            "limited": self.server.settings(LIMITED),
            "down": {**right, "url": "https://127.0.0.1:9"},
        }

    def options(self) -> dict[str, Any]:
        return {"server": "main", "namespaces": [DATA], "exclude_volumes": ["*"]}

    def restore_options(self, other: bool) -> dict[str, Any]:
        return {"server": "main", "namespaces": {DATA: BACK if other else DATA}}

    def restore_into(self, folder: Path) -> dict[str, Any] | None:
        return None

    def fill(self, size: int) -> None:
        self._count = max(1, size // ROOM)
        for number in range(self._count):
            self._put("configmaps", f"kept-{number:03}", self._noise())

    def change(self, share: float) -> None:
        for number in range(max(1, int(share * self._count))):
            self._put("configmaps", f"kept-{number:03}", self._noise())

    def writing(self) -> AbstractContextManager[Callable[[], int]]:
        def write(number: int) -> None:
            name = f"pair-{number % PAIRS}"
            self._written += 1
            text = str(self._written)
            self._put("configmaps", name, {"number": text})
            self._put("secrets", name, {"number": base64.b64encode(text.encode()).decode()})

        for number in range(PAIRS):
            write(number)
        return repeated(write)

    def wipe(self) -> None:
        for namespace in (DATA, BACK):
            for kind in ("configmaps", "secrets"):
                self.server.ask("DELETE", f"/api/v1/namespaces/{namespace}/{kind}")

    def check(self, other: bool) -> None:
        found = self.content(other)
        kept = [data for (kind, name), data in found.items() if name.startswith("kept-")]
        assert len(kept) == self._count
        for data in kept:
            assert hashlib.sha256(data["noise"].encode()).hexdigest() == data["digest"]
        maps = sorted(
            int(data["number"]) for (kind, name), data in found.items() if kind == "configmaps" and "number" in data
        )
        secrets = sorted(
            int(base64.b64decode(data["number"])) for (kind, _), data in found.items() if kind == "secrets"
        )
        if maps:
            assert maps == list(range(maps[0], maps[0] + PAIRS)), "config maps are of one moment"
            assert secrets in (maps, list(range(maps[0] - 1, maps[-1]))), "secrets are of that moment as well"

    def content(self, other: bool) -> dict[tuple[str, str], dict[str, str]]:
        space = f"/api/v1/namespaces/{BACK if other else DATA}"
        return {
            (kind, one["metadata"]["name"]): one.get("data", {})
            for kind in ("configmaps", "secrets")
            for one in self.server.ask("GET", f"{space}/{kind}")["items"]
            if one["metadata"]["name"] != "kube-root-ca.crt"
        }

    def leftovers(self) -> list[str]:
        return []

    def refused(self) -> Sequence[Refused]:
        self._put("configmaps", "kept-000", {"noise": "another"})
        return [
            Refused("a namespace that there is not", "source-missing", {"server": "main", "namespaces": ["no"]}),
            Refused("a kind that there is not", "source-missing", {**self.options(), "kinds": ["no"]}),
            Refused("a wrong token", "source-denied", {**self.options(), "server": "wrong"}),
            Refused("an account without rights", "source-denied", {**self.options(), "server": "limited"}),
            Refused("a server that is down", "source-unavailable", {**self.options(), "server": "down"}),
            Refused("a cluster that there is not", "bad-options", {**self.options(), "server": "no"}),
            Refused("what stands there and differs", "source", self.restore_options(False), "restore"),
        ]

    def _noise(self) -> dict[str, str]:
        noise = base64.b64encode(self._random.randbytes(ROOM * 3 // 4)).decode()
        return {"noise": noise, "digest": hashlib.sha256(noise.encode()).hexdigest()}

    def _put(self, kind: str, name: str, data: dict[str, str]) -> None:
        """Make it, or replace it."""
        path = f"/api/v1/namespaces/{DATA}/{kind}"
        body = {"metadata": {"name": name, "namespace": DATA}, "data": data}
        try:
            self.server.ask("PUT", f"{path}/{name}", body)
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            self.server.ask("POST", path, body)
