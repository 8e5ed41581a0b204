"""Text as Go's standard library writes it, for that is what restic's JSON is made of.

Names pass through ``strconv.Quote`` (https://pkg.go.dev/strconv#Quote), strings through ``encoding/json``, times are
RFC 3339 with up to nine digits of a second (https://pkg.go.dev/time#RFC3339Nano).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import msgspec

from snappy.errors import Damaged

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = _EPOCH.replace(tzinfo=None)
_NANOS = 1_000_000_000
_SECOND = timedelta(seconds=1)
_FIRST_SECOND = int((datetime(1, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds())
_LAST_SECOND = int((datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - _EPOCH).total_seconds())
_TIME_REST = re.compile(r"(?:\.(\d+))?(?:Z|([+-])(\d\d):(\d\d))\Z", re.ASCII)

_LETTERS = {7: "a", 8: "b", 9: "t", 10: "n", 11: "v", 12: "f", 13: "r", 34: '"', 92: "\\"}
_BYTES = {letter: bytes([code]) for code, letter in _LETTERS.items()}
_PLAIN = re.compile(rb"[ !#-\[\]-~]*\Z")
_ESCAPE = re.compile(r'\\(?:([abfnrtv\\"])|x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))|([\\"\n])')
_INVALID = re.compile("[\udc80-\udcff]")


def quote(name: bytes) -> str:
    """A name as restic keeps it: escaped, whatever its bytes; valid UTF-8 stays readable."""
    if _PLAIN.match(name):
        return name.decode("ascii")
    return "".join(map(_quoted, name.decode("utf-8", "surrogateescape")))


def _quoted(character: str) -> str:
    code = ord(character)
    if code in _LETTERS:
        return "\\" + _LETTERS[code]
    if character.isprintable():
        return character
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def unquote(text: str) -> bytes:
    """The bytes of a name that was quoted. Raises :class:`Damaged`."""
    if "\\" not in text and '"' not in text and "\n" not in text:
        return text.encode()
    parts: list[bytes] = []
    position = 0
    for match in _ESCAPE.finditer(text):
        parts += (text[position : match.start()].encode(), _unquoted(match, text))
        position = match.end()
    parts.append(text[position:].encode())
    return b"".join(parts)


def _unquoted(match: re.Match[str], text: str) -> bytes:
    letter, two, octal, four, eight, stray = match.groups()
    try:
        if letter:
            return _BYTES[letter]
        if two or octal:
            return bytes([int(two, 16) if two else int(octal, 8)])
        if not stray:
            return chr(int(four or eight, 16)).encode()
    except (ValueError, OverflowError):
        pass  # not a byte, or not a character: a stray escape too
    raise Damaged(f"{text[:80]!r} is not a quoted name")


def json_string(raw: bytes) -> str | msgspec.Raw:
    """What Go makes of a string: itself, or JSON with an escaped U+FFFD for each byte that is not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        parts = _INVALID.split(raw.decode("utf-8", "surrogateescape"))
        inner = rb"\ufffd".join(msgspec.json.encode(part)[1:-1] for part in parts)
        return msgspec.Raw(b'"' + inner + b'"')


def escape_html(document: bytes) -> bytes:
    """JSON as Go escapes it, for safety inside of HTML; outside of strings JSON has none of these."""
    for plain, escaped in _HTML:
        document = document.replace(plain, escaped)
    return document


_HTML = (
    (b"<", rb"\u003c"),
    (b">", rb"\u003e"),
    (b"&", rb"\u0026"),
    ("\u2028".encode(), rb"\u2028"),
    ("\u2029".encode(), rb"\u2029"),
)


def format_time(nanoseconds: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 in UTC; years outside of 1 to 9999 become the nearest moment."""
    seconds, rest = divmod(nanoseconds, _NANOS)
    if rest == 0:
        return _format_second(seconds) + "Z"
    return f"{_format_second(seconds)}.{rest:09d}".rstrip("0") + "Z"


def _format_second(seconds: int) -> str:
    if not _FIRST_SECOND <= seconds <= _LAST_SECOND:
        seconds = _FIRST_SECOND if seconds < _FIRST_SECOND else _LAST_SECOND
    return (_NAIVE_EPOCH + timedelta(0, seconds)).isoformat()


def parse_time(text: str) -> int:
    """Nanoseconds since the epoch. Raises :class:`Damaged`."""
    digits = text[20:-1]
    if text[19:20] == "." and text[-1] == "Z" and digits.isdecimal() and digits.isascii():
        return _parse_second(text[:19]) + int(digits if len(digits) == 9 else digits[:9].ljust(9, "0"))
    return _parse_any_time(text)


@lru_cache(maxsize=8192)
def _parse_any_time(text: str) -> int:
    match = _TIME_REST.match(text, 19)
    if match is None:
        raise Damaged(f"{text[:40]!r} is not a time")
    fraction, sign, hours, minutes = match.groups("")
    found = _parse_second(text[:19])
    if sign:
        found -= int(sign + "60") * (60 * int(hours) + int(minutes)) * _NANOS
    return found + int(fraction[:9].ljust(9, "0"))


@lru_cache(maxsize=8192)
def _parse_second(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text + "+00:00")
    except ValueError as error:
        raise Damaged(f"{text[:40]!r} is not a time") from error
    if text[10] != "T":
        raise Damaged(f"{text[:40]!r} is not a time")
    return (moment - _EPOCH) // _SECOND * _NANOS
