"""The sealed JSON files of a repository: index files, snapshots, locks and the configuration.

Plain, each starts with one byte: 2 for zstd-compressed JSON, or ``[`` or ``{`` for JSON as it is. Its name is the
SHA-256 of the sealed bytes. Source: restic's ``doc/design.rst``, "Unpacked Data Format".
"""

from __future__ import annotations

import hashlib
import os

from snappy.errors import Damaged
from snappy.repository.compression import Compressor, decompress
from snappy.repository.crypto import SealingKey
from snappy.repository.format import Random
from snappy.repository.store import FileType, Store

_COMPRESSED = b"\x02"
_JSON = (b"{", b"[")


class Documents:
    """Reads and writes the sealed files in ``store``. Any thread may call any method.

    ``compressor`` is None in a repository of version 1, which has no compression.
    """

    def __init__(
        self, store: Store, key: SealingKey, compressor: Compressor | None, random: Random = os.urandom
    ) -> None:
        self._store = store
        self._key = key
        self._compressor = compressor
        self._random = random

    def save(self, kind: FileType, document: bytes) -> str:
        """Store the JSON and return its name, 64 hexadecimal digits. It is opened again before it is written.

        Raises :class:`Damaged` when what was sealed does not open to the same, and StorageError.
        """
        plain = document if self._compressor is None else _COMPRESSED + self._compressor.compress(document)
        sealed = self._key.seal(plain, self._random)
        del plain  # what verifying needs is as large
        if unwrap(self._key.open(sealed)) != document:
            raise Damaged("a document changed while it was sealed; the memory of this machine may be faulty")
        name = hashlib.sha256(sealed).hexdigest()
        self._store.save(kind, name, sealed)
        return name

    def load(self, kind: FileType, name: str, size: int | None = None) -> bytes:
        """The JSON of that file. Raises :class:`Damaged` when it is not authentic, and StorageError."""
        sealed = self._store.load_named(kind, name, size)
        try:
            return unwrap(self._key.open(sealed))
        except Damaged as error:
            raise Damaged(f"{kind.value} {name[:8]} is damaged: {error.message}") from error


def unwrap(plain: bytes) -> bytes:
    """The JSON in a document's plain bytes. Raises :class:`Damaged`."""
    if plain.startswith(_JSON):
        return plain
    if plain.startswith(_COMPRESSED):
        return decompress(memoryview(plain)[1:])
    raise Damaged("the document has an unknown encoding")
