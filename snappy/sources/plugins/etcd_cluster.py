"""An etcd cluster: how to reach it, as the service's configuration says, its API, and what its errors mean.

The API is that of the JSON gateway, which every server from 3.4 on has beside gRPC (etcd.io, "gRPC gateway"): bytes are
base64, 64-bit numbers are strings.
"""

from __future__ import annotations

import http.client
import shutil
import socket
import ssl
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from snappy import secrets
from snappy.config import Secret
from snappy.decoding import from_json
from snappy.errors import (
    BadOptions,
    NoSpace,
    ProgramMissing,
    SourceDenied,
    SourceError,
    SourceUnavailable,
)
from snappy.sources.site import Site

PLUGIN = "etcd"
PROGRAMS = ("etcdutl", "etcdctl")
REMEDY = "apt install etcd-client, or name etcdutl or etcdctl as `program` in the plug-in's settings"
SILENT = "look whether the server runs, and at the plug-in's settings at the source service"
TLS = "see ca, cert and key in the plug-in's settings"
NOT_FOUND = 404


class EtcdSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a member of an etcd cluster is, and as whom to go there."""

    url: Annotated[
        str, Meta(pattern=r"^https?://[^/@]+$", description="where a member serves clients: https://host:2379")
    ] = "http://127.0.0.1:2379"
    user: Annotated[str, Meta(description="the user; empty: none")] = ""
    password: Annotated[Secret | None, Meta(description="where the user's password is found")] = None
    ca: Annotated[str, Meta(description="the file of the authorities that may vouch for it; empty: the system's")] = ""
    cert: Annotated[str, Meta(description="the file of the client's certificate")] = ""
    key: Annotated[str, Meta(description="the file of that certificate's key")] = ""
    timeout: Annotated[float, Meta(gt=0, description="seconds after which a server that is silent is given up")] = 60.0
    program: Annotated[
        str, Meta(description="the program that makes data folders of snapshots; empty: etcdutl, else etcdctl")
    ] = ""


class Cluster:
    """The cluster that the settings of that name describe."""

    def __init__(self, site: Site, name: str) -> None:
        self.name = name
        self._settings: EtcdSettings = site.settings(PLUGIN, EtcdSettings, name)

    def program(self) -> str:
        """The path of what makes data folders. Raises :class:`ProgramMissing`."""
        found = self._settings.program or next(filter(None, map(shutil.which, PROGRAMS)), None)
        if not found:
            raise ProgramMissing(f"neither {' nor '.join(PROGRAMS)} is installed", hint=REMEDY)
        return found

    def member(self) -> Member:
        """One that asks nothing yet."""
        return Member(self._settings)

    def connect(self) -> Member:
        """A member, as the configured user. Raises as :meth:`Member.log_in`."""
        member = self.member()
        member.log_in()
        return member


class Member:
    """Asks one server; each question is a connection of its own."""

    def __init__(self, settings: EtcdSettings) -> None:
        self._settings, self.token = settings, ""
        self._socket: socket.socket | None = None

    def log_in(self) -> None:
        """As the configured user, if there is one. Raises :class:`SourceUnavailable` and :class:`SourceDenied`."""
        given = self._settings
        if given.user:
            password = secrets.read(given.password) if given.password else ""
            self.token = str(self.ask("auth/authenticate", name=given.user, password=password)["token"])

    def ask(self, what: str, **words: Any) -> dict[str, Any]:
        """The answer to one question. Raises as :func:`explained`."""
        with closing(self.stream(what, **words)) as answer:
            found: dict[str, Any] = from_json(answer.rest())
        return found

    def interrupt(self) -> None:
        """End the waiting for the answer to the last question. From any thread."""
        if self._socket:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def stream(self, what: str, **words: Any) -> Answer:
        """An answer of several parts."""
        connection = self._connection()
        with explained():
            try:
                connection.connect()
                self._socket = connection.sock
                sent = {"Content-Type": "application/json"} | ({"Authorization": self.token} if self.token else {})
                connection.request("POST", f"/v3/{what}", msgspec.json.encode(words), sent)
                answer = Answer(connection)
            except BaseException:
                connection.close()
                raise
        return answer

    def _connection(self) -> http.client.HTTPConnection:
        parts, given = urlsplit(self._settings.url), self._settings
        if parts.scheme == "http":
            return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=given.timeout)
        with explained():
            context = ssl.create_default_context(cafile=given.ca or None)
            if given.cert:
                context.load_cert_chain(given.cert, given.key or None)
        return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=given.timeout, context=context)


class Answer:
    """What a server says."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        assert connection.sock
        self._connection, self._socket = connection, connection.sock
        self._response = connection.getresponse()
        if self._response.status != http.client.OK:
            raise _refused(self._response.status, self._response.read())

    def rest(self) -> bytes:
        """All of it."""
        with explained():
            return self._response.read()

    def part(self) -> dict[str, Any] | None:
        """The next one, ``None`` at the end."""
        with explained():
            line = self._response.readline()
        if not line:
            return None
        said = from_json(line)
        if "result" not in said:
            raise meaning(said.get("error", {}))
        return dict(said["result"])

    def interrupt(self) -> None:
        """End all waiting. From any thread."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._response.close()
        self._connection.close()


def in_base64(data: bytes) -> str:
    """Bytes as the API has them."""
    return b64encode(data).decode()


def span(prefix: bytes) -> tuple[bytes, bytes]:
    """The first key that begins so, and the first after all of them; as the API has it, NUL stands for the end."""
    kept = prefix.rstrip(b"\xff")
    return prefix or b"\0", kept[:-1] + bytes([kept[-1] + 1]) if kept else b"\0"


def missing() -> list[str]:
    """What this machine lacks to make data folders."""
    if any(map(shutil.which, PROGRAMS)):
        return []
    return [f"neither {' nor '.join(PROGRAMS)} is installed: {REMEDY}"]


@contextmanager
def explained() -> Iterator[None]:
    """What a connection raises becomes an error that says what to do."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise SourceDenied(f"the server's certificate is refused: {error.verify_message}", hint=TLS) from error
    except ssl.SSLError as error:
        raise SourceUnavailable(f"TLS with the server fails: {error.reason or error}", hint=TLS) from error
    except TimeoutError as error:
        raise SourceUnavailable("the server is silent", hint=SILENT) from error
    except (OSError, http.client.HTTPException) as error:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise SourceUnavailable(f"the server cannot be reached: {said}", hint=SILENT) from error


def meaning(said: dict[str, Any]) -> SourceError | NoSpace:
    """The error for what a server refuses with; its codes are those of gRPC, which differ from version to version."""
    message = str(said.get("message") or said.get("error") or said)
    for words, kind, hint in _MEANINGS:
        if any(word in message for word in words):
            return kind(f"the server says: {message}", hint=hint)
    return SourceError(f"the server says: {message}")


_MEANINGS: Sequence[tuple[Sequence[str], type[SourceError | NoSpace], str | None]] = (
    (("authentication failed", "permission denied", "user name", "auth token", "not enabled"), SourceDenied, None),
    (("space exceeded",), NoSpace, "compact and defragment the cluster, or raise its quota-backend-bytes"),
    (("too large", "larger than max", "too many operations"), BadOptions, "raise the cluster's max-request-bytes"),
    (
        ("no leader", "timed out", "leader changed", "server stopped", "unhealthy", "transport is closing"),
        SourceUnavailable,
        "look at the cluster's health: `etcdctl endpoint status --cluster`",
    ),
)


def _refused(status: int, said: bytes) -> SourceError | NoSpace:
    if status == NOT_FOUND:
        return BadOptions("what answers there is no etcd of version 3.4 or newer", hint=SILENT)
    try:
        return meaning(from_json(said))
    except (msgspec.DecodeError, AttributeError):
        return SourceUnavailable(f"the server answers with HTTP status {status}", hint=SILENT)
