"""The ``mariadb-physical`` plug-in: the data folder of a whole MariaDB server with the log that makes it consistent.

The snapshot holds ``/mariadb-physical/<server>/backup.xb``, as mariadb-backup streams it and mbstream unpacks it, and
``about.json``. The service runs where the server does: mariadb-backup reads the server's files.
"""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, closing
from typing import Annotated, Any, BinaryIO, ClassVar, NamedTuple, cast

import msgspec
from msgspec import Meta

from snappy.errors import BadOptions, SourceDenied
from snappy.repository.entries import Entry
from snappy.repository.format import MIB
from snappy.sources.databases import claim
from snappy.sources.made_up import folders_above, stream
from snappy.sources.places import Local, parse_place
from snappy.sources.plugins.mariadb_dumps import Spooled
from snappy.sources.plugins.mariadb_folder import ABOUT, FOLDER, PLUGIN, STREAM, FolderSink, PhysicalRestore
from snappy.sources.plugins.mariadb_server import ExplainedOutput, MariaDbSettings, Server, Session, missing
from snappy.sources.programs import Program, Running
from snappy.sources.site import Site

NEEDED = ("mariadb-backup", "mbstream")
LOCK_SECONDS = 60


class PhysicalOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a server is backed up."""

    server: Annotated[str, Meta(description="which server, by its name in the source service's configuration")] = (
        "default"
    )
    spool: Annotated[
        bool,
        Meta(description="go through a file where the service works, so that the server never waits for a slow target"),
    ] = True


class Frozen(NamedTuple):
    """What is held while the backup is read."""

    option_file: str
    spooled: Spooled
    about: bytes
    held: ExitStack


class PhysicalSource:
    """A whole MariaDB server, its data folder with the log that makes it consistent."""

    name: ClassVar[str] = PLUGIN
    Options: ClassVar[type[msgspec.Struct]] = PhysicalOptions
    RestoreOptions: ClassVar[type[msgspec.Struct]] = PhysicalRestore
    Settings: ClassVar[type[msgspec.Struct]] = MariaDbSettings

    def __init__(self, options: PhysicalOptions, site: Site) -> None:
        self._options, self._site = options, site
        self._server = Server(PLUGIN, site, options.server)
        self._running = Running()

    def claims(self) -> list[str]:
        """The server."""
        return [claim(self.name, self._server.name)]

    @classmethod
    def missing(cls) -> list[str]:
        """What this machine lacks for it, a sentence each."""
        return missing(NEEDED)

    def snap(self) -> AbstractAsyncContextManager[Frozen]:
        """Nothing is frozen: the log that is read beside the files makes one moment of them."""
        return self._snap()

    @asynccontextmanager
    async def _snap(self) -> AsyncIterator[Frozen]:
        frozen = await asyncio.to_thread(self._freeze)
        try:
            yield frozen
        finally:
            self._running.end()
            await asyncio.to_thread(frozen.held.close)

    def _freeze(self) -> Frozen:
        with ExitStack() as held:
            held.callback(self._running.end)
            folder = held.enter_context(self._site.work_folder(self.name))
            option_file = self._server.option_file(folder)
            with closing(self._server.connect(lock_seconds=LOCK_SECONDS)) as session:
                self._server.check_program("mariadb-backup", session.version)
                about = _about(session)
            os.mkdir(folder / "target", 0o700)
            spooled = Spooled(folder / "backup.xb", lambda **how: self._start(option_file, **how))
            held.callback(spooled.close)
            return Frozen(option_file, spooled, about, held.pop_all())

    def export(self, frozen: Frozen) -> Iterator[Entry]:
        """What is said of it first: a restore needs it."""
        folder = FOLDER.format(self._server.name)
        about = f"{folder}/{ABOUT}".encode()
        yield from folders_above(about)
        yield stream(about, lambda: io.BytesIO(frozen.about), size=len(frozen.about))
        yield stream(f"{folder}/{STREAM}".encode(), lambda: self._open(frozen))

    def _open(self, frozen: Frozen) -> BinaryIO:
        raw: io.RawIOBase = frozen.spooled
        if self._options.spool:
            frozen.spooled.start()
        else:
            raw = ExplainedOutput(self._start(frozen.option_file))
        return cast(BinaryIO, io.BufferedReader(raw, MIB))

    def _start(self, option_file: str, **how: Any) -> Program:
        target = os.path.join(os.path.dirname(option_file.partition("=")[2]), "target")
        words = [self._server.program("mariadb-backup"), option_file, "--backup", "--stream=xbstream"]
        return self._running.start([*words, f"--target-dir={target}"], **how)

    def interrupt(self) -> None:
        """End the backup."""
        self._running.end()

    @classmethod
    def restore_claims(cls, options: PhysicalRestore, site: Site) -> list[str]:
        """The folder."""
        place = parse_place(options.to)
        if not isinstance(place, Local):
            raise BadOptions(f"{options.to} is no local folder")
        return [os.path.realpath(place.claim)]

    @classmethod
    def import_(cls, options: PhysicalRestore, claims: Sequence[str], site: Site) -> FolderSink:
        """What makes a data folder."""
        return FolderSink(Server(PLUGIN, site, options.server), os.fsencode(claims[0]))


def _about(session: Session) -> bytes:
    """Raises :class:`SourceDenied` where the service cannot see the data folder."""
    folder = str(session.value("SELECT @@global.datadir"))
    try:
        owner = os.stat(folder)
        os.scandir(folder).close()
    except OSError as error:
        raise SourceDenied(
            f"the server's data folder {folder} cannot be read: {error.strerror}",
            hint="the source service runs on the server's machine, as its user or as root",
        ) from error
    said = {
        "server_version": session.value("SELECT VERSION()"),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "consistency": "the whole server as of the end of the backup, once it has gone through the log in it",
        "owner": [owner.st_uid, owner.st_gid],
    }
    return msgspec.json.format(msgspec.json.encode(said), indent=2)
