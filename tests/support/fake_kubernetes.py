"""A stand-in for the API server of Kubernetes, where the real one was not built: it has the kinds that a real one was
recorded to have, keeps every revision, and knows lists, server-side apply and its conflicts. No kind is validated.
"""

from __future__ import annotations

import copy
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.support.kubernetes import LIMITED, TOKEN, KubernetesServer

RECORDED = json.loads(Path(__file__).with_name("recorded_kubernetes.json").read_text())
PLACE = re.compile(r"(/api/v1|/apis/[^/]+/[^/]+)(?:/namespaces/([^/]+))?/([^/]+)(?:/([^/]+))?")
MADE = "2026-11-23T08:00:00Z"

Key = tuple[str, str, str, str]
"""The API, the plural of the kind, the namespace, the name."""
Object = dict[str, Any]


class Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message


class Store:
    """Each object with what it was at each revision, ``None`` where it was deleted."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._revision = 1
        self._history: dict[Key, list[tuple[int, Object | None]]] = {}
        self._applied: dict[Key, set[tuple[str, ...]]] = {}
        self.forgets = 0
        """How many more lists are refused, because their revision is too old by now."""
        self.refused: dict[str, int] = {}
        """Paths that are answered with that status."""
        self.asked: list[str] = []
        """What was asked for, method and path."""

    def now(self, key: Key) -> Object | None:
        return self._history[key][-1][1] if key in self._history else None

    def put(self, key: Key, body: Object, applied: set[tuple[str, ...]] | None = None) -> Object:
        _, _, namespace, name = key
        self._require_namespace(namespace)
        self._revision += 1
        about = {**body.get("metadata", {}), "name": name, "creationTimestamp": MADE, "uid": f"uid-{self._revision}"}
        about |= {"resourceVersion": str(self._revision), "managedFields": []} | (
            {"namespace": namespace} if namespace else {}
        )
        made = {**body, "metadata": about}
        self._history.setdefault(key, []).append((self._revision, made))
        self._applied[key] = applied or set()
        return made

    def _require_namespace(self, name: str) -> None:
        if name and self.now(("/api/v1", "namespaces", "", name)) is None:
            raise Refusal(404, f'namespaces "{name}" not found')

    def delete(self, key: Key) -> None:
        self._revision += 1
        self._history[key].append((self._revision, None))

    def apply(self, key: Key, body: Object, *, force: bool, dry: bool) -> Object:
        self._require_namespace(key[2])
        there, ours = self.now(key) or {}, self._applied.get(key, set())
        asked = dict(_leaves({name: value for name, value in body.items() if name != "metadata"}))
        foreign = [path for path, value in asked.items() if path not in ours and _at(there, path) not in (None, value)]
        if there and foreign and not force:
            raise Refusal(409, f"Apply failed with {len(foreign)} conflicts")
        merged = _merged(copy.deepcopy(there), body)
        return merged if dry else self.put(key, merged, ours | set(asked))

    def found(self, api: str, plural: str, namespace: str, revision: int = 0) -> list[tuple[Key, Object]]:
        at = revision or self._revision
        some = []
        for key, versions in sorted(self._history.items()):
            if key[:2] == (api, plural) and namespace in ("", key[2]):
                before = [one for number, one in versions if number <= at]
                if before and before[-1] is not None:
                    some.append((key, before[-1]))
        return some

    def listed(self, api: str, plural: str, namespace: str, query: dict[str, str]) -> Object:
        revision, _, begin = query.get("continue", f"{query.get('resourceVersion') or self._revision}:0").partition(":")
        if self.forgets:
            self.forgets -= 1
            raise Refusal(410, "The provided resource version is too old")
        name, _, value = query.get("labelSelector", "").partition("=")
        every = [
            one
            for _, one in self.found(api, plural, namespace, int(revision))
            if not name or one["metadata"].get("labels", {}).get(name) == value
        ]
        first, limit = int(begin), int(query.get("limit", len(every) or 1))
        more = f"{revision}:{first + limit}" if first + limit < len(every) else ""
        items = [{name: value for name, value in one.items() if name not in ("kind", "apiVersion")} for one in every]
        return {"metadata": {"resourceVersion": revision, "continue": more}, "items": items[first : first + limit]}


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not isinstance(value, dict):
        yield path, value
        return
    for name, inner in value.items():
        yield from _leaves(inner, (*path, name))


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _merged(there: Any, asked: Any) -> Any:
    if not (isinstance(there, dict) and isinstance(asked, dict)):
        return asked
    return {**there, **{name: _merged(there.get(name), value) for name, value in asked.items()}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    """An answer goes in one piece: in two, the second waits for the client to acknowledge the first."""
    store: Store

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(lambda key, query, body: self.store.put((*key[:3], body["metadata"]["name"]), body))

    def do_PUT(self) -> None:
        self._answer(self._replace)

    def do_PATCH(self) -> None:
        self._answer(
            lambda key, query, body: self.store.apply(
                key, body, force=query.get("force") == "true", dry="dryRun" in query
            )
        )

    def do_DELETE(self) -> None:
        self._answer(self._delete)

    def log_message(self, *about: Any) -> None:
        """It has no log."""

    def _answer(self, work: Any) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        try:
            self.store.asked.append(f"{self.command} {parts.path}")
            self._require(parts.path)
            match = PLACE.fullmatch(parts.path)
            if parts.path in RECORDED:
                status, found = 200, RECORDED[parts.path]
            elif match is None:
                raise Refusal(404, "the server could not find the requested resource")
            else:
                api, namespace, plural, name = (part or "" for part in match.groups())
                with self.store.lock:
                    query = dict(parse_qsl(parts.query))
                    status, found = 200, work((api, plural, namespace, name), query, json.loads(data) if data else None)
        except Refusal as refusal:
            status, found = refusal.status, {"message": refusal.message}
        answer = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _require(self, path: str) -> None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if path in self.store.refused:
            raise Refusal(self.store.refused[path], "refused")
        if token not in (TOKEN, LIMITED):
            raise Refusal(401, "Unauthorized")
        if token == LIMITED and path not in RECORDED:
            raise Refusal(403, "forbidden")

    def _get(self, key: Key, query: dict[str, str], body: None) -> Object:
        if not key[3]:
            return self.store.listed(*key[:3], query)
        there = self.store.now(key)
        if there is None:
            raise Refusal(404, f"{key[1]} {key[3]!r} not found")
        return there

    def _replace(self, key: Key, query: dict[str, str], body: Object) -> Object:
        if self.store.now(key) is None:
            raise Refusal(404, f"{key[1]} {key[3]!r} not found")
        return self.store.put(key, body)

    def _delete(self, key: Key, query: dict[str, str], body: None) -> Object:
        for one, _ in [(key, None)] if key[3] else self.store.found(*key[:3]):
            self.store.delete(one)
        return {}


class FakeKubernetes(KubernetesServer):
    """Made by :func:`running`."""

    def __init__(self, folder: Path, url: str, store: Store) -> None:
        super().__init__(folder, url)
        self.store = store


@contextmanager
def running(folder: Path) -> Iterator[FakeKubernetes]:
    """On a free port of the loopback."""
    store = Store()
    handler = type("Handler", (_Handler,), {"store": store})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield FakeKubernetes(folder, f"http://127.0.0.1:{server.server_port}", store)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
