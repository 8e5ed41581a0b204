"""What a Redis server had, key by key into another one that runs: a server of ours reads the backup, and each key goes
over as the server's commands DUMP and RESTORE have it, under a name of ours until all are there.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from snappy.errors import Damaged, SourceError, SourceUnavailable
from snappy.repository.format import MIB
from snappy.sources.plugins.redis_server import Session, facts, unix_socket
from snappy.sources.programs import Input, Program

DUMP = "dump.rdb"
LOG = "log"
SOCKET = "socket"
MOST_DATABASES = 4096
"""A server refuses a backup that has a database of a higher number."""
ANSWER_SECONDS = 600.0
SCRIPT_SECONDS = 3600.0
LOOK_SECONDS = 0.05
START_SECONDS = 30.0
PAGE = 500
BATCH_BYTES = 8 * MIB
LAST_LINES = 3

PUT_IN_PLACE = """
local function each(work)
    local cursor = '0'
    repeat
        local found = redis.call('SCAN', cursor, 'COUNT', 1000)
        cursor = found[1]
        for _, key in ipairs(found[2]) do work(key) end
    until cursor == '0'
end
local function begins(key, with) return string.sub(key, 1, #with) == with end
local function rename(key, to)
    local done = redis.pcall('RENAME', key, to)
    return done.err and not string.find(done.err, 'no such key') and done
end
local made, ours, overwrite, free = ARGV[1], ARGV[2], ARGV[3] == '1', true
local missing = string.sub(made, 1, -2)
local failed = rename(missing, missing)
if failed then return failed end
redis.call('DEL', missing)
for number = 4, #ARGV do
    redis.call('SELECT', ARGV[number])
    each(function(key) free = free and (overwrite or begins(key, ours)) end)
end
if not free then return redis.error_reply('BUSYKEY a database is not empty any more') end
for number = 4, #ARGV do
    redis.call('SELECT', ARGV[number])
    each(function(key) if not begins(key, ours) then redis.call('DEL', key) end end)
    each(function(key)
        if begins(key, made) then failed = rename(key, string.sub(key, #made + 1)) or failed end
    end)
end
return failed
"""
"""In each of the databases all keys that begin with what was ``made`` lose that beginning, and those that do not begin
with what is ``ours`` go; where nothing may be overwritten, nothing happens if there are such. Nobody sees a state
between. A key may come up twice, and is there no more. Whether the user may do all of it is tried with a key that is
missing."""


class Reader:
    """A server of ours on the backup in ``folder``, which nobody else can reach. It does not outlive this process."""

    def __init__(self, program: str, folder: Path) -> None:
        self._folder = folder
        words = ["--port", "0", "--unixsocket", SOCKET, "--unixsocketperm", "700", "--dir", ".", "--dbfilename", DUMP]
        words += ["--save", "", "--appendonly", "no", "--daemonize", "no", "--logfile", LOG]
        words += ["--databases", str(MOST_DATABASES)]
        self._program = Program([program, *words], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, folder=str(folder))
        self._leash = Input(self._program)

    def session(self) -> Session:
        """When all is read. Raises :class:`Damaged` where that fails."""
        session = Session(self._connected(), ANSWER_SECONDS)
        try:
            while facts(session, "persistence")["loading"] == "1":
                time.sleep(LOOK_SECONDS)
        except SourceUnavailable as error:
            session.close()
            raise self._failed() from error
        return session

    def _connected(self) -> socket.socket:
        """By a path that is short, as those of sockets have to be."""
        folder = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        end = time.monotonic() + START_SECONDS
        try:
            while self._program.process.poll() is None and time.monotonic() < end:
                with suppress(OSError):
                    return unix_socket(f"/proc/self/fd/{folder}/{SOCKET}")
                time.sleep(LOOK_SECONDS)
        finally:
            os.close(folder)
        raise self._failed()

    def _failed(self) -> SourceError | Damaged:
        self.close()
        with suppress(OSError):
            said = (self._folder / LOG).read_text(errors="replace").splitlines()[-LAST_LINES:]
            return Damaged(f"{self._program.name} cannot read the backup: {' / '.join(said)}", hint=UNREADABLE)
        return SourceError(f"{self._program.name} does not start{self._program.last_words()}", hint=UNREADABLE)

    def interrupt(self) -> None:
        """End the server: one that loads a file takes its time otherwise. From any thread; does not wait."""
        self._program.end(signal.SIGKILL)

    def close(self) -> None:
        """May be called twice."""
        self._leash.close()


UNREADABLE = "the program must be as new as the server that was backed up, and have room in memory for all of it"


class Copy:
    """Keys that go from one server to another, each with ``prefix`` before its name."""

    def __init__(self, source: Session, target: Session, prefix: bytes) -> None:
        self._source, self._target, self._prefix = source, target, prefix

    def databases(self) -> list[int]:
        """Those of the source that have keys."""
        return sorted(int(name.removeprefix("db")) for name in facts(self._source, "keyspace"))

    def run(self, numbers: Mapping[int, int]) -> None:
        """All keys of these databases, to those that the values name."""
        for source, target in numbers.items():
            self._source.ask("SELECT", source)
            self._target.ask("SELECT", target)
            for page in pages(self._source):
                for batch in self._batches(page):
                    self._copy(batch)

    def functions(self, *, overwrite: bool) -> None:
        """The libraries of functions, which belong to no database. An attempt that was lost may have brought them."""
        if _major(self._source) < 7 or _major(self._target) < 7:
            return
        wanted = _libraries(self._source)
        if wanted and not wanted.items() <= _libraries(self._target).items():
            policy = "REPLACE" if overwrite else "APPEND"
            self._target.ask("FUNCTION", "RESTORE", self._source.ask("FUNCTION", "DUMP"), policy)

    def _batches(self, keys: Sequence[bytes]) -> Iterator[list[bytes]]:
        """Of few bytes each, or of a key alone."""
        batch: list[bytes] = []
        total = 0
        sizes = self._source.ask_all([("MEMORY", "USAGE", key) for key in keys])
        for key, size in zip(keys, sizes, strict=True):
            if batch and total + (size or 0) > BATCH_BYTES:
                yield batch
                batch, total = [], 0
            batch.append(key)
            total += size or 0
        if batch:
            yield batch

    def _copy(self, keys: Sequence[bytes]) -> None:
        """What has expired meanwhile is left out. A key that comes up twice is the same."""
        found = self._source.ask_all([command for key in keys for command in (("PTTL", key), ("DUMP", key))])
        each = zip(keys, found[::2], found[1::2], strict=True)
        self._target.ask_all(
            [
                ("RESTORE", self._prefix + key, 0 if left == -1 else max(1, left), content, "REPLACE")
                for key, left, content in each
                if content is not None
            ]
        )


def put_in_place(target: Session, made: str, ours: str, numbers: Sequence[int], *, overwrite: bool) -> None:
    """See :data:`PUT_IN_PLACE`. A server takes some seconds for a million keys."""
    target.be_patient(SCRIPT_SECONDS)
    target.ask("EVAL", PUT_IN_PLACE, 0, made, ours, int(overwrite), *numbers)


def pages(session: Session, begin: str = "") -> Iterator[list[bytes]]:
    """The keys of the session's database that begin so, some at a time; one may come up twice."""
    cursor = b"0"
    while True:
        cursor, keys = session.ask("SCAN", cursor, "MATCH", f"{begin}*", "COUNT", PAGE)
        if keys:
            yield keys
        if cursor == b"0":
            return


def _libraries(session: Session) -> dict[bytes, bytes]:
    """The code of each by its name."""
    listed = [dict(zip(words[::2], words[1::2], strict=True)) for words in session.ask("FUNCTION", "LIST", "WITHCODE")]
    return {each[b"library_name"]: each[b"library_code"] for each in listed}


def _major(session: Session) -> int:
    return int(facts(session, "server")["redis_version"].split(".")[0])
