"""What a command prints: results on standard output, all else on standard error."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, BinaryIO

import msgspec

from snappy.errors import SnappyError

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


class ReaderLeft(Exception):
    """Who read our standard output went away, as ``head`` does: no error to speak of."""


def result(value: Any, text: str, *, as_json: bool) -> None:
    """Print ``value`` as one JSON line, or ``text``. Raises ReaderLeft."""
    try:
        print(msgspec.json.encode(value).decode() if as_json else text, flush=True)
    except BrokenPipeError as error:
        raise ReaderLeft from error


def encoded(value: Any) -> bytes:
    """``value`` as one line of JSON."""
    return msgspec.json.encode(value)


def lines(found: Iterable[bytes]) -> None:
    """Print lines of any bytes as they come. Raises ReaderLeft."""
    raw(line + b"\n" for line in found)


def raw(pieces: Iterable[bytes]) -> None:
    """Write bytes as they come. Raises ReaderLeft."""
    with piping() as out:
        for piece in pieces:
            out.write(piece)


@contextmanager
def piping() -> Iterator[BinaryIO]:
    """Standard output for bytes. Raises ReaderLeft."""
    plain = sys.stdout.buffer  # with PYTHONUNBUFFERED one that may write less than it is given
    out = open(plain.fileno(), "wb", closefd=False) if isinstance(plain, io.RawIOBase) else plain  # noqa: SIM115
    try:
        yield out
        out.flush()
    except BrokenPipeError as error:
        raise ReaderLeft from error


def note(text: str) -> None:
    """A line for the person at the terminal."""
    print(text, file=sys.stderr)


def failure(error: SnappyError) -> dict[str, Any]:
    """What ``--json`` prints of an error."""
    body = {"code": error.code, "message": error.message, "hint": error.hint, "retryable": error.retryable}
    return {"error": body}


def fault(error: SnappyError, *, as_json: bool) -> None:
    """Why a command failed: a sentence and a hint; with ``as_json`` also an object on standard output."""
    if as_json:
        result(failure(error), "", as_json=True)
    note(f"snappy: {error.message}")
    if error.hint:
        note(f"hint: {error.hint}")


def size(count: float) -> str:
    """Bytes in the largest unit that keeps a digit before the point."""
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def duration(seconds: float) -> str:
    """Seconds as ``1.4 s``, ``3:07`` or ``2:03:07``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def age(seconds: float) -> str:
    """Seconds in the largest unit of which there are two: ``14 min``, ``26 h``, ``3 d``."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def moment(unix_seconds: float) -> str:
    """A point in time in UTC, to the second."""
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned by their widest cell; the last is left as it is."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]).rstrip()
        for line in lines
    )
