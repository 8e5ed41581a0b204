"""Restores of a Redis server: a file in a folder that a server starts on, or keys in one that runs.

Keys are called ``snappy-restore:<service>:<token>:...`` until all are there; what a restore that died left is known by
that, for no session is called like it any more, and the next one removes it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from snappy import log
from snappy.decoding import from_json
from snappy.errors import AttemptOver, BadOptions, NoSpace, SnappyError, SourceError, SourceMissing, SourceUnavailable
from snappy.repository.entries import Node
from snappy.repository.paths import ROOT, shown
from snappy.sources.databases import whole
from snappy.sources.made_up import recognized
from snappy.sources.open_folders import OpenFolders
from snappy.sources.plugins.redis_copy import DUMP, LOOK_SECONDS, Copy, Reader, pages, put_in_place
from snappy.sources.plugins.redis_server import PLUGIN, Server, Session, facts
from snappy.sources.site import Site

FOLDER = "/redis/{}"
LAYOUT = re.compile(r"/redis/[^/]+/(about\.json|dump\.rdb)")
ABOUT = "about.json"

OURS = "snappy-restore:"
GIVING_UP = "snappy-giving-up"
"""The session of who removes what it restored."""
END_SECONDS = 10.0
NAME = re.compile(rb"(snappy-restore:[^:]+:[0-9a-f]{8}):.*", re.DOTALL)

UNFINISHED = ".snappy-unfinished-dump.rdb"
APPENDED = "appendonly.aof"
"""What a server reads instead that appends to a file whatever is written; from version 7 on it moves that file into a
folder."""
IN_THE_WAY = (DUMP, APPENDED, "appendonlydir")
FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_log = log.get(__name__)


class RedisRestore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Into which server, or which folder."""

    server: Annotated[str, Meta(description="a server that runs, by its name in the configuration")] = "default"
    databases: Annotated[
        dict[Annotated[str, Meta(pattern=r"^\d+$")], Annotated[int, Meta(ge=0)]],
        Meta(description='which of them, and into which of the server: {"0": 3}; none: all, into their own'),
    ] = {}
    to: Annotated[str, Meta(description="instead: the absolute folder of a server that does not run")] = ""
    overwrite: Annotated[
        bool, Meta(description="replace all that is in these databases, or the dump.rdb in the folder")
    ] = False


class _DumpSink(ABC):
    """See :class:`snappy.repository.entries.StreamSink`. One dump goes into a file."""

    def __init__(self) -> None:
        self._about: dict[str, Any] = {}
        self._is_whole = False

    def receive(self, path: bytes, node: Node, content: Iterator[bytes]) -> list[str]:
        file = recognized(path, LAYOUT, PLUGIN)[1]
        if file != ABOUT and self._is_whole:
            raise BadOptions(f"there is a second {file} in the snapshot", hint="choose one with --include")
        if file == ABOUT:
            self._about = from_json(whole(content))
            return []
        try:
            self._write(content)
        except OSError as error:
            raise _of_system(error) from error
        self._is_whole = True
        return []

    def _write(self, content: Iterator[bytes]) -> None:
        with os.fdopen(self._open(), "wb") as file:
            file.writelines(content)
            file.flush()
            os.fsync(file.fileno())

    @abstractmethod
    def _open(self) -> int:
        """The new file."""

    def _check_whole(self) -> None:
        if not self._is_whole:
            raise SourceMissing(f"there is no {DUMP} in what was chosen of the snapshot")


class FolderSink(_DumpSink):
    """Makes what a server starts on. ``place`` is absolute, its symlinks resolved."""

    def __init__(self, place: bytes, *, overwrite: bool) -> None:
        super().__init__()
        self._place, self._overwrite = place, overwrite
        self._folders = OpenFolders(place)
        with ExitStack() as held:
            held.callback(self._folders.close)
            held.callback(os.close, _locked(self._folder, place))
            self._check_free()
            held.callback(self._remove_unfinished)
            self._held = held.pop_all()

    @property
    def _folder(self) -> int:
        return self._folders.get(ROOT).handle

    def _open(self) -> int:
        self._remove_unfinished()
        handle = os.open(UNFINISHED, FLAGS, 0o600, dir_fd=self._folder)
        if os.geteuid() == 0:
            owner = os.stat(".", dir_fd=self._folder)
            os.fchown(handle, owner.st_uid, owner.st_gid)
        return handle

    def finish(self) -> list[str]:
        self._check_whole()
        self._check_free()
        try:
            if self._about.get("append_only"):
                os.link(UNFINISHED, APPENDED, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            os.replace(UNFINISHED, DUMP, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            _settle(self._folder)
        except OSError as error:
            raise _of_system(error) from error
        return []

    def close(self) -> None:
        self._held.close()

    def _remove_unfinished(self) -> None:
        with suppress(OSError):
            os.unlink(UNFINISHED, dir_fd=self._folder)

    def _check_free(self) -> None:
        """What a server would read instead of the dump is never removed."""
        for name in IN_THE_WAY:
            if _exists(name, self._folder) and not (self._overwrite and name == DUMP):
                raise BadOptions(
                    f"{name} stands in {shown(self._place)}",
                    hint="restore to another folder, or move it away; with overwrite dump.rdb is replaced",
                )


class ServerSink(_DumpSink):
    """Fills databases of a server that runs. No key has its name before all are there."""

    def __init__(self, server: Server, options: RedisRestore, site: Site) -> None:
        super().__init__()
        self._server, self._options = server, options
        self._name = f"{OURS}{site.name}:{secrets.token_hex(4)}"
        self._target: Session | None = None
        self._reader: Reader | None = None
        self._is_over = False
        self._used: list[int] = []
        if len(set(options.databases.values())) < len(options.databases):
            raise BadOptions("two databases cannot be restored into one")
        with ExitStack() as held:
            self._folder = held.enter_context(site.work_folder(PLUGIN))
            self._program = server.program()
            with closing(server.connect(self._name)) as session:
                _check_single(session)
                _remove_left(session, f"{OURS}{site.name}:")
                self._check_free(session, sorted(options.databases.values()))
            self._held = held.pop_all()

    def _open(self) -> int:
        return os.open(self._folder / DUMP, FLAGS, 0o600)

    def finish(self) -> list[str]:
        self._check_whole()
        with closing(self._server.connect(self._name)) as target:
            self._target = target
            self._fill(target)
            if self._used:
                overwrite = self._options.overwrite
                put_in_place(target, f"{self._name}:", OURS, self._used, overwrite=overwrite)
        self._used = []
        return []

    def _fill(self, target: Session) -> None:
        self._reader = reader = Reader(self._program, self._folder)
        if self._is_over:
            raise AttemptOver
        with closing(reader), closing(reader.session()) as source:
            copy = Copy(source, target, f"{self._name}:".encode())
            numbers = self._chosen(copy.databases())
            self._check_free(target, self._used)
            copy.run(numbers)
            if not self._options.databases:
                copy.functions(overwrite=self._options.overwrite)

    def _chosen(self, found: list[int]) -> dict[int, int]:
        wanted = {int(old): new for old, new in self._options.databases.items()} or {one: one for one in found}
        if lost := sorted(set(wanted) - set(found)):
            raise SourceMissing(
                f"the backup has nothing in database {', '.join(map(str, lost))}",
                hint=f"it has: {', '.join(map(str, found)) or 'none'}",
            )
        self._used = sorted(wanted.values())
        return wanted

    def interrupt(self) -> None:
        """Hang up."""
        self._is_over = True
        for waiting in (self._target, self._reader):
            if waiting:
                waiting.interrupt()

    def close(self) -> None:
        with self._held:
            if self._reader:
                self._reader.close()
            if self._used:
                self._give_up()

    def _give_up(self) -> None:
        """What was asked last may still be on its way to the server, and must not come upon half of the keys."""
        used, self._used = self._used, []
        try:
            with closing(self._server.connect(GIVING_UP)) as session:
                _await_end(session, self._name)
                for number in used:
                    _remove(session, number, self._name)
        except SnappyError as error:
            _log.warning("unfinished keys stay until the next restore", reason=error.message)

    def _check_free(self, session: Session, numbers: list[int]) -> None:
        for number in [] if self._options.overwrite else numbers:
            session.ask("SELECT", number)
            if any(not key.startswith(OURS.encode()) for page in pages(session) for key in page):
                raise BadOptions(
                    f"there are keys in database {number} of the server {self._server.name}",
                    hint='restore into another one, databases: {"0": 1}, or with overwrite',
                )


def _check_single(session: Session) -> None:
    if facts(session, "cluster").get("cluster_enabled") == "1":
        raise BadOptions(
            "the server is one of a cluster, each of which has but some of the keys",
            hint="restore to a folder, and start the cluster's server on it",
        )


def _remove_left(session: Session, begin: str) -> None:
    """Keys of this service's restores that are no more."""
    alive = _alive(session)
    for database in facts(session, "keyspace"):
        session.ask("SELECT", database.removeprefix("db"))
        for page in pages(session, begin):
            dead = [key for key in page if (name := NAME.fullmatch(key)) and name[1].decode() not in alive]
            if dead:
                session.ask("UNLINK", *dead)
                _log.info("removed what a dead restore left", database=database, keys=len(dead))


def _alive(session: Session) -> set[str]:
    """What sessions are called."""
    return set(re.findall(r" name=(\S+)", session.ask("CLIENT", "LIST").decode(errors="replace")))


def _await_end(session: Session, name: str) -> None:
    """Until the server has done with the session of that name. Raises :class:`SourceUnavailable`."""
    end = time.monotonic() + END_SECONDS
    while name in _alive(session):
        if time.monotonic() > end:
            raise SourceUnavailable("the server is still at it")
        time.sleep(LOOK_SECONDS)


def _remove(session: Session, number: int, name: str) -> None:
    session.ask("SELECT", number)
    for page in pages(session, f"{name}:"):
        session.ask("UNLINK", *page)


def _exists(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _locked(folder: int, place: bytes) -> int:
    """Nobody else restores there until it is closed."""
    handle = _opened(folder)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise BadOptions(f"another restore is at work in {shown(place)}", hint="wait until it has ended") from None
    return handle


def _opened(folder: int) -> int:
    return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)


def _settle(folder: int) -> None:
    """The names in it outlive a power cut."""
    opened = _opened(folder)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _of_system(error: OSError) -> SourceError | NoSpace:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"there is no room for {DUMP}", hint="free space there, or in the service's work folder")
    return SourceError(f"{DUMP} cannot be restored: {error.strerror}", hint="look at the folder's permissions")
