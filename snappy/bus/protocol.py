"""The messages of the filesystem over NATS.

*Control operations* are requests on ``<prefix>.fs.<target>.<operation>.<caller>``: one MessagePack struct each way
(:data:`OPERATIONS`), behind its CRC-32 (ISO 3309) in 4 bytes, big endian. Every request carries the caller's grant,
every answer the target's clock and either a result or a :class:`~snappy.bus.failures.Failure`.

*Frames* carry what is too large for one message, as requests on
``<prefix>.data.<target>.<replica>.<caller>.<transfer>``. A frame is one payload without headers::

    kind    1 byte
    offset  8 bytes, big endian, bytes from the start of the transfer
    crc     4 bytes, big endian, CRC-32 of kind and offset, and of the rest but for a WRITE's, which a SHA-256 covers
    rest    bytes

A message that was damaged on its way is refused with :class:`~snappy.errors.Garbled`, has no effect, and is sent again.

A put is OPEN, WRITE..., COMMIT; frames may arrive in any order within the window and may be repeated. A get is READ,
FETCH..., CLOSE. What fits one message takes one request: PUT, or READ with its data inline.

By the direct way (:mod:`snappy.bus.direct`), where both ends are on one host, the bytes come and go without WRITE and
FETCH: a put is OPEN, all bytes and the line's end, COMMIT; a get is READ, all bytes, and CLOSE where a digest was asked
for.
"""

from __future__ import annotations

import re
import struct
import zlib
from enum import IntEnum
from typing import Literal, NamedTuple, TypeVar

import msgspec

from snappy.bus.failures import Failure
from snappy.bus.pieces import Pieces
from snappy.decoding import from_msgpack
from snappy.errors import BusError, Garbled

VERSION = 1
CLOCK_MARGIN = 2.0
"""Seconds that the clocks of a target and its callers may differ."""
MESSAGE_OVERHEAD = 4096
"""Bytes of a message kept free for all that is not the object's data: paths, grants, the struct itself."""
FRAME_LIMIT = 1 << 20
"""Bytes of data in a frame at most; larger ones buy no speed."""

NAMED_BY_HASH = re.compile(r"(?:data|index|snapshots|keys|locks)/(?:[^/]+/)*([0-9a-f]{64})\Z")

Mode = Literal["create", "overwrite"]


def named_hash(path: str) -> str:
    """The SHA-256 (hex) that the object of a repository at ``path`` must have; empty where it may have any."""
    match = NAMED_BY_HASH.match(path)
    return match[1] if match else ""


# ---- requests ----------------------------------------------------------------------------------------------------


class Request(msgspec.Struct, kw_only=True, frozen=True):
    """What every control operation carries. Paths are relative to the target's root."""

    grant: str = ""
    v: int = VERSION


class PathRequest(Request, kw_only=True, frozen=True):
    """Of ``info``, ``exists`` and ``rm`` (which removes an object, or an empty directory)."""

    path: str


class MakeDirectory(Request, kw_only=True, frozen=True):
    path: str
    parents: bool = True
    exist_ok: bool = False


class Copy(Request, kw_only=True, frozen=True):
    path: str
    to: str


class List(Request, kw_only=True, frozen=True):
    """One page of a directory, sorted by name. ``listing`` and ``cursor`` are what the page before said."""

    path: str
    listing: str = ""
    cursor: str = ""
    limit: int = 10_000


class Find(List, kw_only=True, frozen=True):
    """One page of all below a directory."""

    depth: int | None = None
    directories: bool = False


class Put(Request, kw_only=True, frozen=True):
    """A whole object."""

    path: str
    data: bytes
    mode: Mode = "overwrite"


class Open(Request, kw_only=True, frozen=True):
    """Begin a put in frames. ``size`` is in bytes, None where it is not known yet. ``user`` is the id of the user that
    may take the bytes to a line of the direct way, -1 for none."""

    path: str
    mode: Mode = "overwrite"
    size: int | None = None
    max_payload: int
    user: int = -1


class Read(Request, kw_only=True, frozen=True):
    """Bytes ``start`` to ``end`` (exclusive; None: to the end). ``digest`` asks for a SHA-256 at the close; ``user`` is
    that of :class:`Open`."""

    path: str
    start: int = 0
    end: int | None = None
    digest: bool = True
    max_payload: int
    user: int = -1


# ---- answers -----------------------------------------------------------------------------------------------------


class Item(msgspec.Struct, frozen=True, array_like=True):
    """An object or a directory. ``modified`` is Unix seconds, 0 where it is not known."""

    name: str
    size: int
    type: Literal["file", "directory"]
    modified: float = 0.0


class Answer(msgspec.Struct, kw_only=True, frozen=True):
    """``clock`` is the target's, in Unix seconds."""

    clock: float = 0.0
    failure: Failure | None = None
    v: int = VERSION


class ItemAnswer(Answer, kw_only=True, frozen=True):
    item: Item | None = None


class ExistsAnswer(Answer, kw_only=True, frozen=True):
    exists: bool = False


class RemovalAnswer(Answer, kw_only=True, frozen=True):
    """``kept_until``: Unix seconds until which the storage keeps the object at most, though it does not show any more;
    0: not at all."""

    kept_until: float = 0.0


class PageAnswer(Answer, kw_only=True, frozen=True):
    """``cursor`` is empty on the last page."""

    items: list[Item] = []
    listing: str = ""
    cursor: str = ""


class OpenAnswer(Answer, kw_only=True, frozen=True):
    """Where the frames go: ``transfer`` is the token in the subject, ``frame`` the data bytes in each at most.

    ``direct`` is the name of the socket of the direct way (:mod:`snappy.bus.direct`), empty where there is none, and
    ``user`` the id of the user that the target runs as."""

    replica: str = ""
    transfer: str = ""
    frame: int = 0
    direct: str = ""
    user: int = -1


class ReadAnswer(OpenAnswer, kw_only=True, frozen=True):
    """``data``, or a transfer of ``size`` bytes."""

    data: bytes | None = None
    size: int = 0


class Operation(NamedTuple):
    request: type[Request]
    answer: type[Answer]


OPERATIONS: dict[str, Operation] = {
    "info": Operation(PathRequest, ItemAnswer),
    "exists": Operation(PathRequest, ExistsAnswer),
    "ls": Operation(List, PageAnswer),
    "find": Operation(Find, PageAnswer),
    "rm": Operation(PathRequest, RemovalAnswer),
    "mkdir": Operation(MakeDirectory, Answer),
    "cp": Operation(Copy, Answer),
    "put": Operation(Put, Answer),
    "open": Operation(Open, OpenAnswer),
    "read": Operation(Read, ReadAnswer),
}


# ---- frames ------------------------------------------------------------------------------------------------------


class Kind(IntEnum):
    WRITE = 1
    COMMIT = 2
    ABORT = 3
    FETCH = 4
    CLOSE = 5
    DATA = 16
    ANSWER = 17
    DIGEST = 18


class Commit(msgspec.Struct, kw_only=True, frozen=True):
    """What a COMMIT frame holds: what was sent, and the grant as it is now."""

    size: int
    sha256: str
    grant: str = ""
    v: int = VERSION


_HEAD = struct.Struct(">BQ")
_CRC = struct.Struct(">I")
_LENGTH = struct.Struct(">I")
PREFIX_SIZE = _HEAD.size + _CRC.size


class Frame(NamedTuple):
    kind: Kind
    offset: int
    rest: memoryview


def pack_frame(kind: Kind, offset: int, rest: bytes | memoryview = b"") -> Pieces:
    """``rest`` is not copied: it must not change until the frame was answered."""
    head = _HEAD.pack(kind, offset)
    return Pieces(head + _CRC.pack(_frame_crc(kind, head, rest)), rest)


def parse_frame(raw: bytes) -> Frame:
    """Raises BusError for what is no frame, and Garbled where the CRC does not match."""
    try:
        kind, offset = _HEAD.unpack_from(raw)
        crc: int = _CRC.unpack_from(raw, _HEAD.size)[0]
    except struct.error as error:
        raise BusError("a message on a data subject is no frame") from error
    rest = memoryview(raw)[PREFIX_SIZE:].toreadonly()
    if _frame_crc(kind, raw[: _HEAD.size], rest) != crc:
        raise Garbled("a frame was damaged on its way")
    try:
        return Frame(Kind(kind), offset, rest)
    except ValueError as error:
        raise BusError("a message on a data subject is no frame") from error


def _frame_crc(kind: int, head: bytes, rest: bytes | memoryview) -> int:
    crc = zlib.crc32(head)
    return crc if kind == Kind.WRITE else zlib.crc32(rest, crc)


def pack_length(length: int) -> bytes:
    """What a FETCH frame holds."""
    return _LENGTH.pack(length)


def parse_length(rest: memoryview) -> int:
    try:
        length: int = _LENGTH.unpack(rest)[0]
    except struct.error as error:
        raise BusError("a fetch frame holds four bytes") from error
    return length


def frame_size(*max_payloads: int) -> int:
    """Data bytes in a frame so that it fits each of these ``max_payload`` limits."""
    return min(FRAME_LIMIT, min(max_payloads) - MESSAGE_OVERHEAD)


# ---- MessagePack -------------------------------------------------------------------------------------------------

encode = msgspec.msgpack.Encoder().encode
"""For what lies in a frame, which has a CRC of its own."""
Message = TypeVar("Message", bound=msgspec.Struct)


def decode(raw: bytes | memoryview, kind: type[Message]) -> Message:
    """Raises BusError for what does not validate, or has a version that is not next to ours."""
    try:
        message = from_msgpack(raw, kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BusError(f"the message is no {kind.__name__}: {error}") from error
    version: int = getattr(message, "v", VERSION)
    if abs(version - VERSION) > 1:
        raise BusError(f"the message has version {version}, this side speaks {VERSION}", hint="upgrade the older side")
    return message


def seal(message: msgspec.Struct) -> Pieces:
    """A control message as it is sent."""
    body = encode(message)
    return Pieces(_CRC.pack(zlib.crc32(body)), body)


def unseal(raw: bytes, kind: type[Message]) -> Message:
    """Raises Garbled where the CRC does not match, else as :func:`decode`."""
    body = memoryview(raw)[_CRC.size :]
    if len(raw) < _CRC.size or zlib.crc32(body) != _CRC.unpack_from(raw)[0]:
        raise Garbled(f"a {kind.__name__} was damaged on its way")
    return decode(body, kind)
