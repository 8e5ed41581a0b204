"""Programs that a plug-in runs: one whose output is a backup, one whose input is a restore, and short ones.

They get no more of the service's environment than they need to run at all: its secrets are not theirs. What they write
to stderr goes to the log, and its end into the error.
"""

from __future__ import annotations

import fcntl
import io
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from snappy import log
from snappy.errors import AttemptOver, ProgramFailed, ProgramMissing, SourceError

KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
PIPE_BYTES = 1 << 20
LAST_LINES = 5
LONGEST_LINE = 500
ERROR = re.compile(r"\b(error|fatal)\b.*:", re.IGNORECASE)
SECRET = re.compile(r"(password\s*=\s*|password\s+(?='))('(?:[^']|'')*'?|[^\s'\";,]+)", re.IGNORECASE)
"""As in a statement that failed, or in a connection string that stands in one."""
READ_BYTES = 1 << 16
"""Of a line, however long it is."""
END_SECONDS = 10.0
"""How long a program that is to end may take before it is killed."""

LOOK_SECONDS = 0.1

_log = log.get(__name__)


class Program:
    """A program that runs, in a session of its own. Raises :class:`ProgramMissing` and :class:`ProgramFailed`."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | None = subprocess.PIPE,
        folder: str | None = None,
    ) -> None:
        self.name = os.path.basename(arguments[0])
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._error = ""
        try:
            self.process = subprocess.Popen(
                arguments,
                env=surroundings() | dict(environment or {}),
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                cwd=folder,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise missing(arguments[0]) from error
        except OSError as error:
            raise ProgramFailed(f"{self.name} cannot be started: {error.strerror}") from error
        self._listener = threading.Thread(target=self._listen, name="stderr", daemon=True)
        self._listener.start()

    def wait(self) -> None:
        """Until it has ended. Raises :class:`ProgramFailed` unless all went well."""
        code = self.process.wait()
        self._listener.join(END_SECONDS)
        if code:
            raise ProgramFailed(f"{self.name} {_ending(code)}{self.last_words()}")

    def watch(self, seconds: float, cancelled: Callable[[], None]) -> None:
        """Until it has ended, well or not; its id is not let go, by which what it started is known too. Raises
        :class:`ProgramFailed` when it takes longer than so many seconds, and what ``cancelled`` raises."""
        began = time.monotonic()
        while os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            cancelled()
            if time.monotonic() - began > seconds:
                raise ProgramFailed(f"{self.name} did not end within {seconds:g} seconds{self.last_words()}")
            time.sleep(LOOK_SECONDS)

    def last_words(self) -> str:
        """The end of what it said, and what it called an error before, as the end of a sentence."""
        error = [self._error] if self._error and self._error not in self._lines else []
        return ": " + " / ".join([*error, *self._lines]) if self._lines else ""

    def end(self, by: signal.Signals = signal.SIGTERM) -> None:
        """End it and all that it started, if it still runs. From any thread; does not wait."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, by)
            threading.Thread(target=self._make_sure, name="killing", daemon=True).start()

    def kill(self) -> None:
        """End it before it can do anything else. Waits."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _make_sure(self) -> None:
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def _listen(self) -> None:
        assert self.process.stderr
        with self.process.stderr as stderr:
            for line in _lines(stderr):
                self._lines.append(line)
                self._error = line if ERROR.search(line) else self._error
                _log.info("a program says", program=self.name, line=line)


Explained = Callable[[], AbstractContextManager[None]]
"""Within it a :class:`ProgramFailed` becomes an error that says what to do."""


class Output(io.RawIOBase):
    """What a program writes, as a file that can be read once. Its end is reached only if the program ended well: else
    ``read`` raises :class:`ProgramFailed`, or what ``explained`` makes of that. To close it ends the program."""

    def __init__(self, program: Program, explained: Explained = nullcontext) -> None:
        assert program.process.stdout
        self._program, self._pipe, self._explained = program, program.process.stdout, explained
        _widen(self._pipe.fileno())

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = os.readv(self._pipe.fileno(), [buffer])
        if not size and len(buffer):
            with self._explained():
                self._program.wait()
        return size

    def close(self) -> None:
        if not self.closed:
            self._program.end()
            self._pipe.close()
        super().close()


class Running:
    """The programs of one job, which all end when it is over."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._programs: list[Program] = []
        self.is_over = False

    def start(self, arguments: Sequence[str], **how: Any) -> Program:
        """See :class:`Program`."""
        program = Program(arguments, **how)
        with self._lock:
            self._programs.append(program)
            if self.is_over:
                program.end()
        return program

    def run(self, arguments: Sequence[str], **how: Any) -> None:
        """Have a program do its work, which is over when this process dies. Raises as :class:`Program`."""
        program = self.start(arguments, stdout=subprocess.DEVNULL, **how)
        guard = Guard(program)
        try:
            program.wait()
        finally:
            guard.leave()

    def feed(self, arguments: Sequence[str], content: Iterable[bytes], **how: Any) -> None:
        """Have a program read all of ``content``. Raises as :class:`Program`, and what ``content`` raises."""
        program = self.start(arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, **how)
        with closing(Input(program)) as fed:
            for piece in content:
                fed.write(piece)
            fed.finish()

    def check(self) -> None:
        """Raise :class:`AttemptOver` when it is."""
        if self.is_over:
            raise AttemptOver

    def end(self) -> None:
        with self._lock:
            self.is_over = True
            for program in self._programs:
                program.end()


GUARD = ("/bin/sh", "-c", 'read -r word || kill -KILL "-$0"')
"""Unless it reads a line, it kills a process group."""


class Guard:
    """A process that kills a program should this one die. It holds the program's input open, too, if that is the
    ``pipe``: the program dies before it could see the end of it."""

    def __init__(self, program: Program, pipe: int = subprocess.DEVNULL) -> None:
        self._process = subprocess.Popen(
            [*GUARD, str(program.process.pid)],
            stdin=subprocess.PIPE,
            stdout=pipe,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def leave(self) -> None:
        """Let go of the program. May be called twice."""
        if self._process.poll() is None:
            self._process.communicate(b"\n")


class Input:
    """What a program reads. Only :meth:`finish` lets it see the end of its input: a program that was fed a part must
    not take it for all, so :meth:`close` kills it before, and so does a guard if this process dies."""

    def __init__(self, program: Program) -> None:
        assert program.process.stdin
        self._program, self._pipe = program, program.process.stdin
        self._done = False
        self._guard = Guard(program, self._pipe.fileno())
        _widen(self._pipe.fileno())

    def write(self, data: bytes) -> None:
        """Raises :class:`ProgramFailed` when the program has ended."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._pipe.fileno(), view) :]
        except BrokenPipeError:
            self._done = True
            self._program.wait()
            raise ProgramFailed(f"{self._program.name} did not want all of it{self._program.last_words()}") from None

    def finish(self) -> None:
        """That was all. Returns when the program has ended well, or raises :class:`ProgramFailed`."""
        self._done = True
        self._guard.leave()
        with suppress(BrokenPipeError):
            self._pipe.close()
        self._program.wait()

    def close(self) -> None:
        """Give up, unless all was given; may be called twice."""
        if not self._done:
            self._done = True
            self._program.kill()
        self._guard.leave()
        with suppress(BrokenPipeError):
            self._pipe.close()


def run(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    given: bytes = b"",
    seconds: float = 60.0,
    folder: str | None = None,
) -> bytes:
    """What a short program writes that is ``given`` some bytes. Raises :class:`ProgramMissing` and
    :class:`ProgramFailed`, also when it takes longer than so many seconds."""
    name = os.path.basename(arguments[0])
    try:
        done = subprocess.run(
            arguments,
            env=surroundings() | dict(environment or {}),
            input=given,
            capture_output=True,
            timeout=seconds,
            cwd=folder,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise missing(arguments[0]) from error
    except subprocess.TimeoutExpired as error:
        raise ProgramFailed(f"{name} did not end within {seconds:g} seconds") from error
    except OSError as error:
        raise ProgramFailed(f"{name} cannot be started: {error.strerror}") from error
    if done.returncode:
        words = " / ".join(deque(_lines(io.BytesIO(done.stderr)), LAST_LINES))
        raise ProgramFailed(f"{name} {_ending(done.returncode)}" + (f": {words}" if words else ""))
    return done.stdout


def surroundings() -> dict[str, str]:
    """The environment that every program gets."""
    return {name: os.environ[name] for name in KEPT if name in os.environ}


def missing(program: str) -> SourceError:
    """The error for a program that is not there."""
    return ProgramMissing(
        f"{program} is not installed where the source service runs", hint="`snappy plugins check` says what is missing"
    )


def write_private(path: Path, text: str) -> None:
    """For a program to read, and for nobody else."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(handle, "w", encoding="utf-8") as file:
        file.write(text)


def lacking(wanted: Mapping[str, str]) -> list[str]:
    """A sentence for each program that is not there; the values say how to come by it."""
    return [f"{program} is not installed: {remedy}" for program, remedy in wanted.items() if not shutil.which(program)]


def _ending(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"


def _lines(stderr: IO[bytes]) -> Iterator[str]:
    for line in iter(partial(stderr.readline, READ_BYTES), b""):
        text = SECRET.sub(r"\1...", line.decode(errors="replace").rstrip())[:LONGEST_LINE]
        if text:
            yield text


def _widen(pipe: int) -> None:
    """The system may refuse to a user with many pipes; then it is slower."""
    with suppress(OSError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
