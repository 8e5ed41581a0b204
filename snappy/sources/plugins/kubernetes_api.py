"""The API of a Kubernetes cluster: requests, and which kinds of objects it has.

HTTP and JSON are all that it takes: kinds are asked for, so that custom ones are like all others; a client that knows
the kinds of one version would not help.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from snappy.errors import AttemptOver, SourceDenied, SourceError, SourceMissing, SourceUnavailable
from snappy.sources.plugins.kubernetes_access import KubernetesSettings, access
from snappy.sources.site import Site

PLUGIN = "kubernetes"
JSON_TYPE = "application/json"
APPLY_TYPE = "application/apply-patch+yaml"
MANAGER = "snappy"
PAGE = 250
"""Objects of one answer."""

Object = dict[str, Any]


class Kind(NamedTuple):
    """Of objects, such as ``deployments`` of the group ``apps``."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool

    @property
    def name(self) -> str:
        """``deployments.apps``, or ``pods`` of the core group."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "") -> str:
        """Of such an object, or of all."""
        above = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        inside = f"/namespaces/{quote(namespace)}" if namespace and self.namespaced else ""
        return f"{above}{inside}/{self.plural}" + (f"/{quote(name)}" if name else "")


class Refused(SourceError):
    """An answer that is no success; ``status`` is HTTP's."""

    status = 0


class Api:
    """One connection, for one thread at a time. Raises :class:`SourceUnavailable`, :class:`SourceDenied`,
    :class:`SourceMissing` and :class:`Refused`."""

    def __init__(self, site: Site, server: str) -> None:
        settings: KubernetesSettings = site.settings(PLUGIN, KubernetesSettings, server)
        self._access, self._timeout = access(settings), settings.timeout
        self._connection: http.client.HTTPConnection | None = None
        self._over = threading.Event()

    def interrupt(self) -> None:
        """No more requests."""
        self._over.set()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get(self, path: str, **query: str | int) -> Object:
        return self._ask("GET", path, query, None, JSON_TYPE)

    def apply(self, path: str, manifest: Object, *, force: bool, dry: bool) -> Object:
        """Server-side apply."""
        query = {"fieldManager": MANAGER, "force": str(force).lower()} | ({"dryRun": "All"} if dry else {})
        return self._ask("PATCH", path, query, manifest, APPLY_TYPE)

    def version(self) -> str:
        return str(self.get("/version").get("gitVersion", ""))

    def kinds(self) -> list[Kind]:
        """All that can be listed and made, each in the version that the server prefers."""
        found: dict[tuple[str, str], Kind] = {}
        for group, version in self._versions():
            path = f"/apis/{group}/{version}" if group else f"/api/{version}"
            try:
                resources = self.get(path).get("resources", [])
            except (Refused, SourceMissing, SourceUnavailable):
                if not group:
                    raise
                continue  # an aggregated API whose server is down takes nothing else with it
            for one in resources:
                if "/" not in one["name"] and {"list", "create", "patch"} <= set(one["verbs"]):
                    kind = Kind(group, version, one["name"], one["kind"], one["namespaced"])
                    found.setdefault((group, kind.plural), kind)
        return sorted(found.values())

    def _versions(self) -> Iterator[tuple[str, str]]:
        yield "", "v1"
        for group in self.get("/apis").get("groups", []):
            preferred = group["preferredVersion"]["version"]
            others = [one["version"] for one in group["versions"] if one["version"] != preferred]
            yield from ((group["name"], version) for version in (preferred, *others))

    def revision(self) -> str:
        """Of the cluster's present state."""
        return str(self.get("/api/v1/namespaces", limit=1)["metadata"]["resourceVersion"])

    def objects(self, kind: Kind, namespace: str, labels: str, revision: str) -> Iterator[Object]:
        """All of a kind as of that revision, in one namespace or everywhere."""
        query: dict[str, str | int] = {"limit": PAGE} | ({"labelSelector": labels} if labels else {})
        exact = {"resourceVersion": revision, "resourceVersionMatch": "Exact"}
        page = self.get(kind.path(namespace), **query, **exact)
        while True:
            for one in page.get("items") or ():
                yield {"apiVersion": kind.api_version, "kind": kind.kind, **one}
            more = page["metadata"].get("continue")
            if not more:
                return
            page = self.get(kind.path(namespace), **query, **{"continue": more})

    def _ask(self, method: str, path: str, query: Any, body: Object | None, content_type: str) -> Object:
        if self._over.is_set():
            raise AttemptOver("the attempt is over")
        target = urlsplit(self._access.url).path.rstrip("/") + (f"{path}?{urlencode(query)}" if query else path)
        data = None if body is None else json.dumps(body).encode()
        try:
            status, answer = self._send(method, target, data, content_type)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise SourceUnavailable(
                f"the Kubernetes API at {self._access.url} does not answer: {error or type(error).__name__}",
                hint="see `url` and `ca` of the service's settings, or its kubeconfig",
            ) from error
        if status >= 300:
            raise _refusal(status, answer, f"{method} {path}")
        found: Object = json.loads(answer)
        return found

    def _send(self, method: str, target: str, data: bytes | None, content_type: str) -> tuple[int, bytes]:
        """Both requests may be said twice: a connection that was idle may be gone."""
        headers = {"Accept": JSON_TYPE, "Content-Type": content_type}
        if token := self._access.token():
            headers["Authorization"] = f"Bearer {token}"
        for is_fresh in (self._connection is None, True):
            connection = self._connection or self._connect()
            try:
                connection.request(method, target, data, headers)
                answer = connection.getresponse()
                return answer.status, answer.read()
            except (ConnectionError, http.client.HTTPException):
                self.close()
                if is_fresh:
                    raise
        raise AssertionError

    def _connect(self) -> http.client.HTTPConnection:
        parts, timeout = urlsplit(self._access.url), self._timeout
        host = parts.hostname or ""
        if parts.scheme == "http":
            self._connection = http.client.HTTPConnection(host, parts.port, timeout=timeout)
        else:
            self._connection = http.client.HTTPSConnection(
                host, parts.port, timeout=timeout, context=self._access.tls()
            )
        return self._connection


def _refusal(status: int, answer: bytes, asked: str) -> SourceError:
    try:
        message = str(json.loads(answer).get("message", ""))
    except (ValueError, AttributeError):
        message = answer[:200].decode(errors="replace")
    text = f"the Kubernetes API answers {status} to {asked}: {message}"
    if status in (401, 403):
        return SourceDenied(text, hint="see what the account is granted; docs/plugins.md says what it needs")
    if status == 404:
        return SourceMissing(text, hint="see whether it is there, and under that name")
    if status == 429 or (status >= 500 and status != 501):
        return SourceUnavailable(text, hint="see how the API server is")
    refused = Refused(text, hint="see the API server's log")
    refused.status = status
    return refused
