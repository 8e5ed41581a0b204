"""A Redis server: how to reach it, as the service's configuration says, its protocol, and what its errors mean.

The protocol is RESP 2 (redis.io, "Redis serialization protocol specification"). No client library reads a replication
stream, which a backup is; what else is asked of a server is little.
"""

from __future__ import annotations

import io
import re
import shutil
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta

from snappy import secrets
from snappy.config import Secret
from snappy.errors import (
    BadOptions,
    NoSpace,
    ProgramMissing,
    SourceDenied,
    SourceError,
    SourceUnavailable,
)
from snappy.sources.site import Site

PLUGIN = "redis"
CONNECT_SECONDS = 10.0
PROGRAMS = ("redis-server", "valkey-server")
SILENT = "look whether the server runs, and at the plug-in's settings at the source service"

Word = str | bytes | int


class RedisSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a Redis or Valkey server is, and as whom to go there."""

    host: Annotated[str, Meta(description="its name or address")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535, description="its port")] = 6379
    socket: Annotated[str, Meta(description="its Unix socket, instead of host and port")] = ""
    user: Annotated[str, Meta(description="the user; empty: the server's default one")] = ""
    password: Annotated[Secret | None, Meta(description="where the password is found")] = None
    tls: Annotated[bool, Meta(description="speak TLS with it")] = False
    ca: Annotated[str, Meta(description="the file of the authorities that may vouch for it; empty: the system's")] = ""
    cert: Annotated[str, Meta(description="the file of the client's certificate")] = ""
    key: Annotated[str, Meta(description="the file of that certificate's key")] = ""
    timeout: Annotated[float, Meta(gt=0, description="seconds after which a server that is silent is given up")] = 60.0
    program: Annotated[
        str, Meta(description="the program that a restore reads a backup with; empty: redis-server or valkey-server")
    ] = ""


class Session:
    """A connection that asks, and reads answers: integers, bytes, ``None``, and lists of them. Every method raises as
    :func:`explained`."""

    def __init__(self, connected: socket.socket, timeout: float) -> None:
        connected.settimeout(timeout)
        self._socket = connected
        self._file = cast(io.BufferedReader, connected.makefile("rb", buffering=1 << 16))

    def ask(self, *words: Word) -> Any:
        """The answer to one command."""
        return self.ask_all([words])[0]

    def ask_all(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        """The answers to commands that are sent together."""
        with explained():
            self._socket.sendall(b"".join(map(_command, commands)))
            answers = [self._answer() for _ in commands]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def be_patient(self, seconds: float) -> None:
        """From now on, wait so long for each answer."""
        self._socket.settimeout(seconds)

    def begin(self, *words: Word) -> bytes:
        """The first line of the answer to a command that the server is long at."""
        with explained():
            self._socket.sendall(_command(words))
        return self.line()

    def line(self) -> bytes:
        """The next line that is not empty: servers send such ones while somebody waits."""
        with explained():
            while not (line := self._line()):
                pass
        if line.startswith(b"-"):
            raise meaning(line[1:].decode(errors="replace"))
        return line

    def readinto(self, buffer: Any) -> int:
        """What comes next, whatever it is. Raises :class:`SourceUnavailable` at the end."""
        with explained():
            size = self._file.readinto1(buffer)
            if not size:
                raise EOFError
        return size

    def interrupt(self) -> None:
        """End all waiting. From any thread."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def _line(self) -> bytes:
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return line.rstrip(b"\r\n")

    def _answer(self) -> Any:
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            return meaning(rest.decode(errors="replace"))
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return self._bulk(int(rest))
        if kind == b"*":
            return [self._answer() for _ in range(int(rest))]
        raise SourceError("what answers there does not speak Redis's protocol", hint=SILENT)

    def _bulk(self, size: int) -> bytes | None:
        if size < 0:
            return None
        found = self._file.read(size + 2)
        if len(found) < size + 2:
            raise EOFError
        return found[:-2]


class Server:
    """The server that the settings of that name describe."""

    def __init__(self, site: Site, name: str) -> None:
        self.name = name
        self._settings: RedisSettings = site.settings(PLUGIN, RedisSettings, name)

    def connect(self, name: str) -> Session:
        """A session, called so in the server's list. Raises :class:`SourceUnavailable` and :class:`SourceDenied`."""
        given = self._settings
        with explained():
            session = Session(self._secured(_socket(given)), given.timeout)
        try:
            if given.user or given.password:
                user = [given.user] if given.user else []
                session.ask("AUTH", *user, secrets.read(given.password) if given.password else "")
            session.ask("CLIENT", "SETNAME", name)
        except BaseException:
            session.close()
            raise
        return session

    def _secured(self, connected: socket.socket) -> socket.socket:
        given = self._settings
        if not given.tls:
            return connected
        try:
            context = ssl.create_default_context(cafile=given.ca or None)
            if given.cert:
                context.load_cert_chain(given.cert, given.key or None)
            return context.wrap_socket(connected, server_hostname=given.host)
        except BaseException:
            connected.close()
            raise

    def program(self) -> str:
        """The server that reads what was backed up. Raises :class:`ProgramMissing`."""
        found = self._settings.program or next(filter(None, map(shutil.which, PROGRAMS)), None)
        if not found:
            raise ProgramMissing(f"neither {' nor '.join(PROGRAMS)} is installed", hint=REMEDY)
        return found


def facts(session: Session, section: str) -> dict[str, str]:
    """What the server says of itself (its command INFO)."""
    lines = session.ask("INFO", section).decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def missing() -> list[str]:
    """What this machine lacks to restore to a server that runs."""
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
    except EOFError as error:
        raise SourceUnavailable("the server closed the connection", hint=CLOSED) from error
    except OSError as error:
        raise SourceUnavailable(f"the server cannot be reached: {error.strerror or error}", hint=SILENT) from error


def meaning(said: str) -> SourceError | NoSpace:
    """The error for what a server refuses with."""
    for pattern, kind, hint in _MEANINGS:
        if re.search(pattern, said):
            return kind(f"the server says: {said}", hint=hint)
    return SourceError(f"the server says: {said}")


REMEDY = "apt install redis-server, or name it as `program` in the plug-in's settings"
TLS = "see tls, ca, cert and key in the plug-in's settings"
CLOSED = "the server's log says why; see its client-output-buffer-limit, repl-timeout and maxclients"

_MEANINGS: Sequence[tuple[str, type[SourceError | NoSpace], str | None]] = (
    (r"^(NOAUTH|WRONGPASS|NOPERM|DENIED)|invalid password|no password is set", SourceDenied, None),
    (
        r"unknown command|can't (run this command|access at least one)|ACL failure",
        SourceDenied,
        "docs/plugins.md says what the plug-in needs",
    ),
    (r"^NOMASTERLINK", SourceUnavailable, "it is a replica without its master: back up the master, or wait"),
    (r"^(LOADING|BUSY|MASTERDOWN|TRYAGAIN)\b|max number of clients", SourceUnavailable, "wait, and try it again"),
    (r"^OOM", NoSpace, "raise the server's maxmemory"),
    (r"^MISCONF", SourceUnavailable, "the server cannot save its data, and takes none: its log says why"),
    (r"^READONLY", BadOptions, "it is a replica: restore to its master"),
    (r"DB index is out of range", BadOptions, "raise the server's setting `databases`, or restore to a lower number"),
    (r"^BUSYKEY", BadOptions, "somebody writes there: restore to another database"),
    (r"payload version or checksum|Bad data format", SourceError, "the backup is of a newer Redis than the server"),
    (r"already exists", BadOptions, "the server has a library of functions of that name: restore with overwrite"),
)


def _socket(given: RedisSettings) -> socket.socket:
    if not given.socket:
        made = socket.create_connection((given.host, given.port), CONNECT_SECONDS)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made
    return unix_socket(given.socket)


def unix_socket(path: str) -> socket.socket:
    """Connected with who listens there."""
    made = socket.socket(socket.AF_UNIX)
    try:
        made.settimeout(CONNECT_SECONDS)
        made.connect(path)
    except BaseException:
        made.close()
        raise
    return made


def _command(words: Sequence[Word]) -> bytes:
    encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    made = io.BytesIO()
    made.write(b"*%d\r\n" % len(encoded))
    for word in encoded:
        made.write(b"$%d\r\n" % len(word))
        made.write(word)
        made.write(b"\r\n")
    return made.getvalue()
