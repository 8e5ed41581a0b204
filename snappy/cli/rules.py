"""The options that say when and how often a job runs."""

from __future__ import annotations

import argparse
import re
import time
from datetime import UTC, datetime
from typing import Any

from snappy.errors import UsageError

UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
LENGTH = re.compile(r"(?:[0-9]{1,9}[dhms])+\Z")


def register(parser: argparse.ArgumentParser) -> None:
    """Add them to a job's command."""
    group = parser.add_argument_group("when it runs")
    group.add_argument("--priority", metavar="N", type=int, help="-10 to 10; a higher one overtakes (default: 0)")
    group.add_argument("--not-before", metavar="TIME", type=moment, help="2027-01-01T02:00:00Z, or from now: 90m")
    group.add_argument("--deadline", metavar="TIME", type=moment, help="stop it and let it fail if it is not over then")
    group.add_argument("--attempts", metavar="N", type=int, help="how many may end with an error")
    group.add_argument("--time-limit", metavar="TIME", type=length, help="for one attempt, for example 90m")
    group.add_argument("--bandwidth", metavar="RATE", help="10M, 10M:1M (up:down), or '08:00,512k 18:00,off'")
    group.add_argument("--limit-upload", metavar="KIB", type=int, help="the same, as restic has it: KiB a second")
    group.add_argument("--limit-download", metavar="KIB", type=int)
    group.add_argument(
        "--duplicates",
        choices=["queue", "skip", "replace"],
        help="if a job that does the same is not over: run both, reject this one, or cancel the other (default: queue)",
    )


def fields(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those that were given, as fields of the command."""
    names = ("priority", "not_before", "deadline", "attempts", "time_limit", "duplicates", "bandwidth")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    return given | _limits(arguments)


def _limits(arguments: argparse.Namespace) -> dict[str, str]:
    limits = (arguments.limit_upload, arguments.limit_download)
    if limits == (None, None):
        return {}
    if arguments.bandwidth is not None:
        raise UsageError("--bandwidth says what --limit-upload and --limit-download say", hint="give one of them")
    return {"bandwidth": ":".join(f"{limit}k" if limit else "off" for limit in limits)}


def length(text: str) -> int:
    """``6h``, ``90m``, ``1d12h``, as seconds."""
    if not LENGTH.match(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no length of time; for example 6h, 90m or 1d12h")
    return sum(int(number) * UNITS[unit] for number, unit in re.findall(r"([0-9]+)([dhms])", text))


def moment(text: str) -> str:
    """A time as a command has it, RFC 3339: given as such (without a zone: this machine's), or as a time from now."""
    try:
        if LENGTH.match(text):
            return datetime.fromtimestamp(time.time() + length(text), UTC).isoformat()
        return datetime.fromisoformat(text).astimezone().isoformat()
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(f"{text!r} is no time; for example 2027-01-01T02:00:00Z, or 90m") from None
