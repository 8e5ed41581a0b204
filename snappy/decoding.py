"""Reads JSON, msgpack and plain values into structs, safely from any thread.

msgspec looks at a type when it first meets it, and keeps what it found with the type before it is whole; a second
thread that decodes the same type in that moment crashes the process (msgspec 0.22). So types are met here, one at a
time, and nowhere else: ruff bans the functions of msgspec by which they could be met elsewhere.
"""

from __future__ import annotations

import threading
from typing import Any, Protocol, TypeVar, overload

import msgspec

Value = TypeVar("Value")

_meeting = threading.Lock()


class _Decoder(Protocol):
    def decode(self, data: Any, /) -> Any: ...


_json: dict[Any, _Decoder] = {}
_msgpack: dict[Any, _Decoder] = {}


@overload
def from_json(data: bytes | bytearray | memoryview | str, kind: type[Value]) -> Value: ...
@overload
def from_json(data: bytes | bytearray | memoryview | str, kind: Any = Any) -> Any: ...
def from_json(data: bytes | bytearray | memoryview | str, kind: Any = Any) -> Any:
    """What the JSON says. Raises ``msgspec.DecodeError``, and UnicodeDecodeError for what is no UTF-8."""
    return (_json.get(kind) or _met(_json, kind, msgspec.json.Decoder)).decode(data)  # noqa: TID251


@overload
def from_msgpack(data: bytes | bytearray | memoryview, kind: type[Value]) -> Value: ...
@overload
def from_msgpack(data: bytes | bytearray | memoryview, kind: Any) -> Any: ...
def from_msgpack(data: bytes | bytearray | memoryview, kind: Any) -> Any:
    """What the msgpack says. Raises ``msgspec.DecodeError``."""
    return (_msgpack.get(kind) or _met(_msgpack, kind, msgspec.msgpack.Decoder)).decode(data)  # noqa: TID251


@overload
def converted(value: Any, kind: type[Value], *, strict: bool = True) -> Value: ...
@overload
def converted(value: Any, kind: Any, *, strict: bool = True) -> Any: ...
def converted(value: Any, kind: Any, *, strict: bool = True) -> Any:
    """The plain value as one of ``kind``. Raises ``msgspec.ValidationError``."""
    if kind not in _json:
        _met(_json, kind, msgspec.json.Decoder)  # noqa: TID251
    return msgspec.convert(value, kind, strict=strict)  # noqa: TID251


def _met(known: dict[Any, _Decoder], kind: Any, make: Any) -> _Decoder:
    with _meeting:
        return known.setdefault(kind, make(kind))
