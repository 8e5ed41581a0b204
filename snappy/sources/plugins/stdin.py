"""The ``stdin`` plug-in: what this very process reads from its standard input, or a program writes, as one file.

It is there for ``snappy backup --stdin``, where who asks is who runs the service: only the service's configuration can
make it available.
"""

from __future__ import annotations

import io
import os
import select
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any, BinaryIO, ClassVar, cast

import msgspec
from msgspec import Meta

from snappy.errors import BadOptions, SourceError
from snappy.repository.entries import Entry, StreamSink
from snappy.repository.format import MIB
from snappy.repository.paths import shown
from snappy.sources.made_up import folders_above, stream
from snappy.sources.programs import Output, Program
from snappy.sources.site import Site

PLUGIN = "stdin"
NAME = "default"


class StdinSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That standard input may be read at all."""

    command: Annotated[
        tuple[str, ...], Meta(description="the program whose output is taken instead, and its arguments")
    ] = ()


class StdinOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How it is called in the snapshot."""

    filename: Annotated[str, Meta(pattern=r"\A[^\0]+\Z", description="the file's name, or its path")] = "stdin"


class StdinRestore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """It is restored as a file, by the plug-in ``files``."""


class StdinSource:
    """What comes on the standard input of `snappy backup --stdin`."""

    name: ClassVar[str] = PLUGIN
    Options: ClassVar[type[msgspec.Struct]] = StdinOptions
    RestoreOptions: ClassVar[type[msgspec.Struct]] = StdinRestore
    Settings: ClassVar[type[msgspec.Struct]] = StdinSettings
    _taken = threading.Lock()

    def __init__(self, options: StdinOptions, site: Site) -> None:
        self._bell = _Bell()
        settings: StdinSettings = site.settings(PLUGIN, StdinSettings, NAME)
        self._command = settings.command
        self._path = os.fsencode(os.path.normpath(f"/{options.filename}").replace("//", "/"))
        self._program: Program | None = None

    def claims(self) -> list[str]:
        """The path in the snapshot, as restic has it; nothing else is read."""
        return [shown(self._path)]

    def snap(self) -> AbstractAsyncContextManager[None]:
        """Nothing is frozen."""
        return _nothing()

    def export(self, frozen: None) -> Iterator[Entry]:
        """One file."""
        yield from folders_above(self._path)
        yield stream(self._path, self._open)

    def interrupt(self) -> None:
        """Wait for no more."""
        self._bell.ring()
        if self._program:
            self._program.end()

    def _open(self) -> BinaryIO:
        if self._command:
            self._program = Program(self._command)
            return cast(BinaryIO, Output(self._program))
        if not StdinSource._taken.acquire(blocking=False):
            raise SourceError(
                "an attempt that was lost read a part of standard input", hint="run the command again, with all of it"
            )
        return cast(BinaryIO, io.BufferedReader(_Stdin(sys.__stdin__.fileno(), self._bell), MIB))  # type: ignore[union-attr]

    @classmethod
    def restore_claims(cls, options: StdinRestore, site: Site) -> list[str]:
        """Raises :class:`BadOptions`."""
        raise BadOptions(
            "nothing can be restored to standard input",
            hint="restore it with the plug-in files, or print it with `snappy dump`",
        )

    @classmethod
    def import_(cls, options: StdinRestore, claims: Sequence[str], site: Site) -> StreamSink:
        """Never comes: see :meth:`restore_claims`."""
        raise BadOptions("nothing can be restored to standard input")


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


class _Bell:
    """Wakes who waits for something to read."""

    def __init__(self) -> None:
        self.handle, self._rope = os.pipe()

    def __del__(self) -> None:
        os.close(self.handle)
        os.close(self._rope)

    def ring(self) -> None:
        os.write(self._rope, b"!")


class _Stdin(io.RawIOBase):
    """Ends waiting when the bell rings."""

    def __init__(self, handle: int, bell: _Bell) -> None:
        self._handle, self._bell = handle, bell
        self._waiting = select.poll()
        for each in (handle, bell.handle):
            self._waiting.register(each, select.POLLIN)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._bell.handle in dict(self._waiting.poll()):
            raise SourceError("reading standard input was interrupted")
        return os.readv(self._handle, [buffer])
