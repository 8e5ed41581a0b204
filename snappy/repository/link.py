"""What a job and its worker processes say to each other, and the socket between them.

A message is four bytes of length, little-endian, and that many bytes of msgpack. Both ends are one program; nothing
here has to be understood by another version.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from snappy.decoding import from_msgpack
from snappy.repository.blocks import Cut
from snappy.repository.entries import Seen
from snappy.repository.format import BlobId, PackId
from snappy.repository.tree import EncodedNode

_LENGTH = struct.Struct("<I")
ID_SIZE = 32


class Setup(msgspec.Struct, array_like=True, frozen=True):
    """What workers do, with which key and whose files, written to their standard input. It holds the master key: it
    must never be logged."""

    work: str
    """The name (see :mod:`snappy.repository.makers`) of what a worker calls with its link, this, and its store."""
    key: bytes
    chunker_seed: int
    pack_size: int
    compression: int | None
    store_maker: str
    store_arguments: dict[str, Any]
    niceness: int


class FileOrder(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A file to be read, but for its first ``skip`` bytes; or a ``part`` of it from there, if it lets us seek; or the
    blocks of an image that ``cut`` says."""

    number: int
    maker: str
    arguments: Sequence[Any]
    skip: int
    part: bool
    cut: Cut | None = None


class BunchOrder(msgspec.Struct, array_like=True, frozen=True):
    """Small files of a directory to be read; see :class:`snappy.repository.entries.SmallFiles`."""

    number: int
    folder: bytes
    maker: str
    arguments: Sequence[Any]
    files: list[Seen]


class Batch(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """To a worker: files to be read, in this order."""

    files: list[FileOrder]
    bunches: list[BunchOrder] = []


class Errand(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """To a worker of a pool: something to do."""

    body: bytes


class Claimed(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """To a worker, for each round: a byte for each blob, which is 1 where the worker has to store it."""

    new: bytes


class Notice(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """To a worker: something for its store to know."""

    body: bytes


class Flush(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """To a worker: when all before is done, upload what is left, and end."""


class Stop(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """To a worker: let what is on its way to the store arrive, and end."""


ToWorker = Batch | Errand | Claimed | Notice | Flush | Stop

MORE, DONE, LOST = 0, 1, 2
"""Of a file's part: there will be more, it was the last, the file cannot be read."""


def _named(blobs: bytes, sizes: Sequence[int]) -> Iterator[tuple[BlobId, int]]:
    for place, size in enumerate(sizes):
        yield blobs[place * ID_SIZE : (place + 1) * ID_SIZE], size


class Part(msgspec.Struct, array_like=True, gc=False):
    """What a round has of one file: the blobs' ids, joined, and their plain sizes."""

    number: int
    blobs: bytes
    sizes: list[int]
    skipped: bool
    """Whether the file's first bytes were passed over as was asked."""
    state: int = MORE
    remark: str = ""
    """Why the file was lost, or how it changed while it was read."""

    def named(self) -> Iterator[tuple[BlobId, int]]:
        """Each blob's id and plain bytes."""
        return _named(self.blobs, self.sizes)


class Remark(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What there is to say of a file."""

    path: bytes
    text: str


class BunchRead(msgspec.Struct, array_like=True):
    """What a round has of a bunch: the nodes of those files that could be read, and of those that are not empty the
    blobs' ids, joined, their plain sizes, and by what the journal knows the files."""

    number: int
    nodes: list[EncodedNode] = []
    blobs: bytes = b""
    sizes: list[int] = []
    ids: list[bytes] = []
    remarks: list[Remark] = []

    def named(self) -> Iterator[tuple[BlobId, int]]:
        """Each blob's id and plain bytes."""
        return _named(self.blobs, self.sizes)


class Ready(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """From a worker, its first word."""

    process: int


class Round(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """From a worker: what it has read. It is answered with :class:`Claimed`."""

    parts: list[Part]
    bunches: list[BunchRead] = []


class Reached(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """From a worker: the part ends at ``offset``, where another may go on."""

    number: int
    offset: int


class Packed(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """From a worker: a pack that the store has, as :class:`snappy.repository.pack.FinishedPack` says it."""

    pack: PackId
    size: int
    blob_count: int
    plain: int
    header: bytes


class Brought(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """From a worker of a pool: an errand is done, and this came of it."""

    body: bytes


class Failed(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """From a worker: the error that ended it."""

    code: str
    message: str
    hint: str
    trace: str


class Died(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """From the first worker: another has ended badly; the status is negative where it is that of a signal."""

    number: int
    status: int


class Ended(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """From a worker, its last word: nothing of it is on its way any more."""


FromWorker = Ready | Round | Reached | Packed | Brought | Failed | Died | Ended


class _Link:
    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._reader = end.makefile("rb")
        self._sending = threading.Lock()

    def send(self, message: ToWorker | FromWorker) -> None:
        """From any thread. Raises ``OSError`` when the other end is gone."""
        body = msgspec.msgpack.encode(message)
        with self._sending:
            self._socket.sendall(_LENGTH.pack(len(body)) + body)

    def close(self) -> None:
        """Break the connection; whoever waits at either end hears of it."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other end was faster

    def release(self) -> None:
        """Give the descriptors back; nobody may be waiting at this end any more."""
        self.close()
        self._reader.close()
        self._socket.close()

    def _receive(self) -> bytes:
        head = self._reader.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            raise EOFError
        body = self._reader.read(_LENGTH.unpack(head)[0])
        if len(body) < _LENGTH.unpack(head)[0]:
            raise EOFError
        return body


class WorkerLink(_Link):
    """The worker's end."""

    def receive(self) -> ToWorker:
        """The next message. Raises ``EOFError`` or ``OSError`` when the other end is gone."""
        message: ToWorker = from_msgpack(self._receive(), ToWorker)
        return message


class CrewLink(_Link):
    """The end of who they work for."""

    def receive(self) -> FromWorker:
        """The next message. Raises ``EOFError`` or ``OSError`` when the other end is gone."""
        message: FromWorker = from_msgpack(self._receive(), FromWorker)
        return message
