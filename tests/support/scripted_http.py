"""An HTTP server on the loopback that answers as a function says, and keeps what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Asked(NamedTuple):
    """``path`` as it was sent, with its query."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Said(NamedTuple):
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = {}


class Scripted:
    """Made by :func:`answering`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[Asked] = []

    def count(self, method: str) -> int:
        return sum(each.method == method for each in self.asked)


@contextmanager
def answering(answer: Callable[[Asked], Said]) -> Iterator[Scripted]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(self.command, self.path, dict(self.headers), body)
            scripted.asked.append(asked)
            said = answer(asked)
            self.send_response(said.status)
            for name, value in {"Content-Length": str(len(said.body)), **said.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said.body)

        def __getattr__(self, name: str) -> Any:
            """Any method is one: ``do_GET``, ``do_MOVE``, ..."""
            if name.startswith("do_"):
                return self.handle_any
            raise AttributeError(name)

        def log_message(self, *_said: Any) -> None:
            """A test says what matters."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        scripted = Scripted(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield scripted
        finally:
            server.shutdown()
            thread.join()
