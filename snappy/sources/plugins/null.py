"""The ``null`` plug-in: bytes made up as they are read, to try and measure with; what it restores is thrown away."""

from __future__ import annotations

import io
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any, BinaryIO, ClassVar, cast

import msgspec
from msgspec import Meta

from snappy.repository.entries import Entry, Node, StreamSink
from snappy.repository.format import MIB
from snappy.sources.made_up import folders_above, stream
from snappy.sources.site import Site

CLAIM = "null://"
BLOCK = 64 << 10


class NullOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is made up. The same options give the same bytes."""

    size: Annotated[int, Meta(ge=0, description="bytes of each file")] = 16 * MIB
    files: Annotated[int, Meta(ge=1, le=1_000_000, description="how many files")] = 1
    compressible: Annotated[float, Meta(ge=0, le=1, description="the share of zeros; the rest is noise")] = 0.5
    seed: Annotated[int, Meta(description="another one gives other bytes")] = 0


class NullRestore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing can be chosen."""


class NullSource:
    """Bytes of a size and compressibility."""

    name: ClassVar[str] = "null"
    Options: ClassVar[type[msgspec.Struct]] = NullOptions
    RestoreOptions: ClassVar[type[msgspec.Struct]] = NullRestore

    def __init__(self, options: NullOptions, site: Site) -> None:
        self._options = options

    def claims(self) -> list[str]:
        """One URL for all."""
        return [CLAIM]

    def snap(self) -> AbstractAsyncContextManager[None]:
        """Nothing is frozen."""
        return _nothing()

    def export(self, frozen: None) -> Iterator[Entry]:
        """The files, numbered."""
        width = len(str(self._options.files - 1))
        paths = [f"/null/{number:0{width}}".encode() for number in range(self._options.files)]
        yield from folders_above(paths[0])
        for number, path in enumerate(paths):
            yield stream(path, lambda number=number: self._open(number), size=self._options.size)  # type: ignore[misc]

    def _open(self, number: int) -> BinaryIO:
        options = self._options
        noise = random.Random(f"{options.seed}/{number}")
        return cast(BinaryIO, io.BufferedReader(_MadeUp(noise, options.size, options.compressible), MIB))

    @classmethod
    def restore_claims(cls, options: NullRestore, site: Site) -> list[str]:
        """It writes nowhere; who may, says a rule all the same."""
        return [CLAIM]

    @classmethod
    def import_(cls, options: NullRestore, claims: Sequence[str], site: Site) -> StreamSink:
        """What takes all and keeps nothing."""
        return _Nowhere()


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


class _MadeUp(io.RawIOBase):
    """Blocks of noise, each followed by zeros."""

    def __init__(self, noise: random.Random, size: int, compressible: float) -> None:
        self._noise, self._left = noise, size
        self._noisy = BLOCK - round(BLOCK * compressible)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest and self._left:
            block = self._noise.randbytes(self._noisy) + bytes(BLOCK - self._noisy)
            self._rest = memoryview(block)[: self._left]
            self._left -= len(self._rest)
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


class _Nowhere:
    def receive(self, path: bytes, node: Node, content: Iterator[bytes]) -> list[str]:
        for _ in content:
            pass
        return []

    def finish(self) -> list[str]:
        return []

    def close(self) -> None:
        pass
