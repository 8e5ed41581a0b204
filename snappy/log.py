"""Structured logs on standard error; secrets never reach a line.

A service writes plain lines on a terminal and JSON elsewhere. A command that a person runs tells sentences.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any

from snappy import lean

with lean.without("rich"):  # it would draw tracebacks that ours has made text of already
    import structlog

SECRET_WORDS = ("password", "secret", "token", "credential", "authorization", "seed", "grant", "private_key")
REDACTED = "[redacted]"


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: blanks each value whose key sounds like a secret."""
    for key in event:
        if any(word in key.lower() for word in SECRET_WORDS):
            event[key] = REDACTED
    return event


def setup(level: str = "info", *, json: bool | None = None) -> None:
    """Configure structlog for a service; ``json`` defaults to whether standard error is not a terminal."""
    as_json = not sys.stderr.isatty() if json is None else json
    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    _configure(level, renderer, structlog.PrintLoggerFactory(sys.stderr))


def setup_for_people(tell: Callable[[str], None], level: str = "warning") -> None:
    """Configure structlog for a command that ends: ``tell`` is given a sentence for each event (:func:`sentence`)."""
    _configure(level, sentence, lambda *_: _Teller(tell))


def sentence(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """A structlog renderer: ``warning: what happened (name: value, ...)``, then the traceback and the hint, if any."""
    event = dict(event)
    for unwanted in ("timestamp", "origin", "module"):
        event.pop(unwanted, None)
    level, what = event.pop("level", "note"), event.pop("event", "")
    below = [str(event.pop("exception", "")), f"hint: {event['hint']}" if event.get("hint") else ""]
    event.pop("hint", None)
    details = ", ".join(f"{name}: {value}" for name, value in event.items())
    return "\n".join([f"{level}: {what}" + (f" ({details})" if details else ""), *filter(None, below)])


class _Teller:
    """What structlog takes for a logger: every level is told alike."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = tell


def _configure(level: str, renderer: Any, factory: Callable[..., Any]) -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=factory,
    )


def get(name: str) -> Any:
    """A logger whose lines carry ``origin=name``."""
    return structlog.get_logger(origin=name)
