"""The words of restic's repository format, version 2, that every other module of the engine uses.

The format is restic's; its source is ``doc/design.rst`` in https://github.com/restic/restic.
A *blob* is a chunk of a file or a tree, named by the SHA-256 of its plain bytes; a *pack* is a file of sealed
blobs; every other file is one sealed JSON document.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple, NewType, TypeVar

import msgspec

from snappy.decoding import from_json
from snappy.errors import Damaged

BlobId = bytes
"""32 bytes: the SHA-256 of a blob's plain bytes."""

PackId = bytes
"""32 bytes: the SHA-256 of a pack's bytes, its name in the store."""

Random = Callable[[int], bytes]
"""Gives that many unpredictable bytes; ``os.urandom`` outside tests."""

HexId = NewType("HexId", str)
HEX_ID = re.compile(r"[0-9a-f]{64}\Z")

MIB = 1 << 20
OLDEST_VERSION = 1
NEWEST_VERSION = 2

Document = TypeVar("Document", bound=msgspec.Struct)


class BlobType(Enum):
    """The two kinds of blobs; the value is what index files call them."""

    DATA = "data"
    TREE = "tree"

    __hash__ = object.__hash__  # Enum's own is Python code, and every look-up of a blob needs one


class BlobLocation(NamedTuple):
    """Where one copy of a blob lies: ``length`` bytes, sealed, at ``offset`` in ``pack``.

    ``uncompressed_length`` is 0 for a blob that is not compressed.
    """

    kind: BlobType
    id: BlobId
    pack: PackId
    offset: int
    length: int
    uncompressed_length: int


def blob_id(data: bytes | memoryview) -> BlobId:
    """The name of a blob with these plain bytes."""
    return hashlib.sha256(data).digest()


def parse_id(text: str) -> bytes:
    """The 32 bytes that 64 hexadecimal digits stand for. Raises :class:`Damaged` for anything else."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(text) != 64 or len(found) != 32:
        raise Damaged(f"{text[:80]!r} is not an id")
    return found


def encode_json(document: msgspec.Struct) -> bytes:
    """The document as compact JSON, fields in the order of the struct."""
    return msgspec.json.encode(document)


def decode_json(data: bytes, schema: type[Document], what: str) -> Document:
    """Read ``data`` as ``schema``; unknown fields are skipped. Raises :class:`Damaged`, which calls it ``what``."""
    try:
        return from_json(data, schema)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Damaged(f"{what} is not what it should be: {error}") from error
