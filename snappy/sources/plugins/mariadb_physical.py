"""The ``mariadb-physical`` plug-in: the data folder of a whole MariaDB server with the log that makes it consistent.

The snapshot holds ``/mariadb-physical/<server>/backup.xb``, as mariadb-backup streams it and mbstream unpacks it, and
``about.json``. The service runs where the server does: mariadb-backup reads the server's files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Annotated, BinaryIO, ClassVar, NamedTuple

import msgspec
from msgspec import Meta

from snappy.errors import SourceDenied
from snappy.repository.entries import Entry
from snappy.sources.databases import Named, ServerSource, claim
from snappy.sources.made_up import about, buffered, folders_above, small, stream
from snappy.sources.places import folder_claim
from snappy.sources.plugins.mariadb_dumps import Spooled
from snappy.sources.plugins.mariadb_folder import ABOUT, FOLDER, PLUGIN, STREAM, FolderSink, PhysicalRestore
from snappy.sources.plugins.mariadb_server import MariaDbSettings, Server, Session, explained, missing
from snappy.sources.programs import Output, Program
from snappy.sources.site import Site

NEEDED = ("mariadb-backup", "mbstream")
CONSISTENCY = "the whole server as of the end of the backup, once it has gone through the log in it"
LOCK_SECONDS = 60


class PhysicalOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a server is backed up."""

    server: Named = "default"
    spool: Annotated[
        bool,
        Meta(description="go through a file where the service works, so that the server never waits for a slow target"),
    ] = True


class Frozen(NamedTuple):
    """What is held while the backup is read."""

    spooled: Spooled | None
    start: partial[Program]
    about: bytes


class PhysicalSource(ServerSource[Frozen]):
    """A whole MariaDB server, its data folder with the log that makes it consistent."""

    name: ClassVar[str] = PLUGIN
    Options: ClassVar[type[msgspec.Struct]] = PhysicalOptions
    RestoreOptions: ClassVar[type[msgspec.Struct]] = PhysicalRestore
    Settings: ClassVar[type[msgspec.Struct]] = MariaDbSettings

    def __init__(self, options: PhysicalOptions, site: Site) -> None:
        super().__init__()
        self._options, self._site = options, site
        self._server = Server(PLUGIN, site, options.server)

    def claims(self) -> list[str]:
        """The server."""
        return [claim(self.name, self._server.name)]

    @classmethod
    def missing(cls) -> list[str]:
        """What this machine lacks for it, a sentence each."""
        return missing(NEEDED)

    def _freeze(self, held: ExitStack) -> Frozen:
        """Nothing is frozen: the log that is read beside the files makes one moment of them."""
        folder = held.enter_context(self._site.work_folder(self.name))
        option_file = self._server.option_file(folder)
        with closing(self._server.connect(lock_seconds=LOCK_SECONDS)) as session:
            self._server.check_program("mariadb-backup", session.version)
            said = _about(session)
        target = folder / "target"
        target.mkdir(0o700)
        words = [self._server.program("mariadb-backup"), option_file, "--backup", "--stream=xbstream"]
        start = partial(self._running.start, [*words, f"--target-dir={target}"])
        spooled = held.enter_context(closing(Spooled(folder / STREAM, start))) if self._options.spool else None
        return Frozen(spooled, start, said)

    def export(self, frozen: Frozen) -> Iterator[Entry]:
        """What is said of it first: a restore needs it."""
        folder = FOLDER.format(self._server.name)
        said = f"{folder}/{ABOUT}".encode()
        yield from folders_above(said)
        yield small(said, frozen.about)
        yield stream(f"{folder}/{STREAM}".encode(), lambda: self._open(frozen))

    def _open(self, frozen: Frozen) -> BinaryIO:
        if frozen.spooled is None:
            return buffered(Output(frozen.start(), explained))
        frozen.spooled.start()
        return buffered(frozen.spooled)

    @classmethod
    def restore_claims(cls, options: PhysicalRestore, site: Site) -> list[str]:
        """The folder."""
        return [folder_claim(options.to)]

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
    return about(session.said_version, consistency=CONSISTENCY, owner=[owner.st_uid, owner.st_gid])
