"""Decoders that several threads may want at once.

msgspec looks at a struct's fields when the struct is first used; a thread that uses it meanwhile crashes the process
(seen with 0.22). Here one thread at a time looks.
"""

from __future__ import annotations

import threading
from typing import TypeVar

import msgspec

Kind = TypeVar("Kind")
_LOOKING = threading.Lock()


def json(kind: type[Kind]) -> msgspec.json.Decoder[Kind]:
    with _LOOKING:
        return msgspec.json.Decoder(kind)


def msgpack(kind: type[Kind]) -> msgspec.msgpack.Decoder[Kind]:
    with _LOOKING:
        return msgspec.msgpack.Decoder(kind)
