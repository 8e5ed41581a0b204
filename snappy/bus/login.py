"""Turns the configuration's ``[nats]`` section into what nats-py wants: servers, credentials, TLS, patience."""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from snappy import config, secrets
from snappy.bus.subjects import ANYONE, inbox, token
from snappy.errors import UsageError

PATIENCE = {
    "max_reconnect_attempts": -1,
    "reconnect_time_wait": 1,
    "ping_interval": 10,
    "max_outstanding_pings": 2,
    "drain_timeout": 30,
    "pending_size": 8 << 20,
}
"""Reconnect for ever; notice a dead peer in 30 seconds, where stock nats-py needs six minutes."""


def caller(nats: config.Nats, user: str) -> str:
    """The token that names this process in subjects. Raises UsageError where the two names given differ."""
    if nats.user and user and nats.user != user:
        raise UsageError(
            f"the NATS user is {nats.user!r}, but this service is {user!r}",
            hint="a service's NATS user has the service's own name, as in deploy/nats.conf",
        )
    return token(nats.user or user or ANYONE)


def servers(url: str) -> list[str]:
    """The addresses in ``url``, which may be several with commas between. Raises UsageError."""
    found = [part.strip() for part in url.split(",") if part.strip()]
    if not found:
        raise UsageError("no NATS server is configured", hint="set nats.url or SNAPPY_NATS_URL")
    for address in found:
        if address.startswith(("ws://", "wss://")):
            raise UsageError(f"{without_credentials(address)} is a websocket", hint="use nats:// or tls://")
        if "@" in address:
            raise UsageError(
                f"the NATS address {without_credentials(address)} holds credentials",
                hint="give nats.user, and nats.password or nats.nkey_seed",
            )
    return found


def without_credentials(url: str) -> str:
    """``url`` fit for a log or an error."""
    if "@" not in url:
        return url
    if "://" not in url:
        return url.rpartition("@")[2]
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def options(nats: config.Nats, who: str) -> dict[str, Any]:
    """Keyword arguments of ``Client.connect``. Raises UsageError where a secret or a certificate cannot be read."""
    chosen: dict[str, Any] = {"servers": servers(nats.url), "inbox_prefix": inbox(who), **PATIENCE}
    if nats.nkey_seed:
        chosen["nkeys_seed_str"] = secrets.read(nats.nkey_seed)
    elif nats.password:
        chosen |= {"user": nats.user, "password": secrets.read(nats.password)}
    if any(address.startswith("tls://") for address in chosen["servers"]) or nats.tls_ca:
        chosen["tls"] = _tls(nats)
    return chosen


def _tls(nats: config.Nats) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=nats.tls_ca or None)
        if nats.tls_certificate:
            context.load_cert_chain(nats.tls_certificate, nats.tls_key or None)
    except OSError as error:
        raise UsageError(f"the TLS files of the NATS connection cannot be used: {error.strerror or error}") from error
    return context
