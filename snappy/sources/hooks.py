"""Hooks around a backup: programs of the source service's configuration that a job chooses by name.

What ``before`` did, ``after`` undoes, whoever fails. That it is still to be undone says a note in the service's work
folder, so that this is done too when the process died: when the service starts again, or by the next job with that
hook. A lock on the note, which dies with the process, gives a hook to one job at a time.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any, Literal

import msgspec

from snappy import log
from snappy.config import Hook
from snappy.decoding import from_json
from snappy.errors import AttemptLost, NotUndone, ProgramFailed, SnappyError, SourceError
from snappy.repository.progress import Cancelled, never
from snappy.sources.hold import Hold
from snappy.sources.programs import Program
from snappy.sources.site import Site

FOLDER = "hooks"
"""Of the notes, below the service's work folder."""
LOOK_SECONDS = 0.2
UNDO = "undo it by hand; the service tries again when it starts, and with the next job that has this hook"

Told = dict[str, str]
"""What a program finds in its environment."""

_log = log.get(__name__)


class Hooks:
    """Those that a job chose. Raises BadOptions for one that there is not."""

    def __init__(self, chosen: Sequence[str], site: Site) -> None:
        self._site = site
        self._hooks = {name: site.hook(name) for name in chosen}

    @asynccontextmanager
    async def held(self, hold: Hold) -> AsyncIterator[HeldHooks]:
        """They are this job's alone, and nothing that others did with them is left. Takes them in the order of their
        names, lest two jobs wait for each other."""
        with ExitStack() as notes:
            held: dict[str, HeldHook] = {}
            for name in sorted(self._hooks):
                note = Note(self._site, name)
                notes.callback(note.close)
                await _finished(note.take, _until_over(hold))
                held[name] = HeldHook(name, self._hooks[name], note)
                await _finished(held[name].undo_left)
            yield HeldHooks([held[name] for name in self._hooks], hold)


class HeldHooks:
    """In the order in which they begin; they are undone in the opposite one."""

    def __init__(self, hooks: Sequence[HeldHook], hold: Hold) -> None:
        self._hooks, self._hold = hooks, hold
        self.snapshot = ""
        """What was made, for who undoes."""

    @asynccontextmanager
    async def around(self, what: Literal["backup", "snapshot"]) -> AsyncIterator[None]:
        """Those that are meant to be around that. Raises :class:`ProgramFailed` and :class:`NotUndone`."""
        async with AsyncExitStack() as begun:
            for hook in self._hooks:
                if hook.settings.around == what:
                    await begun.enter_async_context(self._begun(hook))
            yield

    @asynccontextmanager
    async def _begun(self, hook: HeldHook) -> AsyncIterator[None]:
        told = {"SNAPPY_JOB": self._hold.job.id, "SNAPPY_SUBMITTER": self._hold.job.submitter}
        failure: BaseException | None = None
        try:
            await _finished(hook.begin, told, _until_over(self._hold))
            yield
        except BaseException as error:
            failure = self._hold.ended or error
            await _finished(hook.tell_error, told | _why(failure))
            raise
        finally:
            await _finished(hook.undo, told | _why(failure) | {"SNAPPY_SNAPSHOT": self.snapshot}, failure)


class HeldHook:
    """One that is a job's alone. All of it blocks."""

    def __init__(self, name: str, settings: Hook, note: Note) -> None:
        self.name, self.settings, self._note = name, settings, note

    def begin(self, told: Told, cancelled: Cancelled = never) -> None:
        """Raises :class:`ProgramFailed`, and what ``cancelled`` raises."""
        if self.settings.after:
            self._note.write(told)
        try:
            self._run(self.settings.before, told, cancelled)
        except SnappyError as error:
            cancelled()
            raise ProgramFailed(f"`before` of the hook {self.name} failed: {error.message}") from error

    def tell_error(self, told: Told) -> None:
        """Its own errors go to the log: another one has ended the backup."""
        try:
            self._run(self.settings.on_error, told)
        except SnappyError as error:
            _log.error("`on_error` of a hook failed", hook=self.name, reason=error.message)

    def undo(self, told: Told, failure: BaseException | None = None) -> None:
        """Raises :class:`NotUndone`. That something else failed too is told by it."""
        try:
            self._run(self.settings.after, told)
        except SnappyError as error:
            _log.error("`after` of a hook failed", hook=self.name, reason=error.message)
            besides = f"; besides, the backup failed: {failure}" if isinstance(failure, SnappyError) else ""
            raise NotUndone(f"`after` of the hook {self.name} failed: {error.message}{besides}", hint=UNDO) from error
        self._note.clear()

    def undo_left(self) -> None:
        """What a dead process did, or one that could not undo it. If it still cannot be undone, ``before`` will say
        whether it matters: somebody may have undone it by hand."""
        told = self._note.read()
        if told is not None:
            _log.warning("undoing what a hook did for a job that did not undo it", hook=self.name)
            with suppress(NotUndone):
                self.undo(told | _why(AttemptLost()))

    def _run(self, arguments: Sequence[str], told: Told, cancelled: Cancelled = never) -> None:
        if not arguments:
            return
        environment = self.settings.environment | told | {"SNAPPY_HOOK": self.name}
        running = Program(arguments, environment=environment, stdout=subprocess.DEVNULL)
        try:
            running.watch(self.settings.seconds, cancelled)
        except BaseException:
            running.end()
            running.process.wait()
            raise
        running.wait()


class Note:
    """What says that a hook has begun: a file that is otherwise empty."""

    def __init__(self, site: Site, name: str) -> None:
        path = site.kept_file(FOLDER, name)
        self._name = name
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise SourceError(f"{path} cannot be written, where hooks leave notes: {error.strerror}") from error

    def take(self, cancelled: Cancelled) -> None:
        """Wait until nobody else has it."""
        if not self.is_free():
            _log.info("waiting for another job with the same hook", hook=self._name)
            while not self.is_free():
                cancelled()
                time.sleep(LOOK_SECONDS)

    def is_free(self) -> bool:
        """Then it is ours from now on."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def read(self) -> Told | None:
        """What was told to ``before``, if it has begun."""
        text = os.pread(self._file, os.fstat(self._file).st_size, 0)
        try:
            return from_json(text, Told) if text else None
        except (msgspec.DecodeError, UnicodeDecodeError):  # the machine stopped while it was written
            return {}

    def write(self, told: Told) -> None:
        """It begins, and a crash of the machine does not let that be forgotten."""
        self.clear()
        os.pwrite(self._file, msgspec.json.encode(told), 0)
        os.fsync(self._file)

    def clear(self) -> None:
        """It is undone."""
        os.ftruncate(self._file, 0)

    def close(self) -> None:
        os.close(self._file)


def undo_left(site: Site) -> None:
    """What hooks did for processes that died; blocks. Those at work are left alone."""
    for path in sorted(_notes(site)):
        try:
            with closing(Note(site, path.stem)) as note:
                if note.is_free():
                    HeldHook(path.stem, site.hook(path.stem), note).undo_left()
        except SnappyError as error:
            _log.error("what a hook did was not undone", hook=path.stem, reason=error.message)


def _notes(site: Site) -> list[Path]:
    above = site.kept_file(FOLDER, "any").parent
    return [path for path in above.glob("*.kept") if path.stat().st_size]


def undo_left_beside(site: Site) -> None:
    """The same in a thread: jobs wait for the hooks that they need."""
    threading.Thread(target=undo_left, args=(site,), name="hooks", daemon=True).start()


async def _finished(work: Callable[..., None], *given: Any) -> None:
    """Do it in a thread, to its end. Who is cancelled waits for that: nothing is undone while it is being done, and no
    note is let go while somebody writes to it."""
    running = asyncio.get_running_loop().run_in_executor(None, work, *given)
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError as error:
            cancelled = error
    if ended := cancelled or running.exception():
        raise ended


def _until_over(hold: Hold) -> Cancelled:
    """Unlike :meth:`Hold.check` it does not wait where a grant ran out: a hook needs none."""
    return lambda: hold.check() if hold.ended else None


def _why(error: BaseException | None) -> Told:
    """The code of an error; nothing where there is none."""
    if error is None:
        return {"SNAPPY_ERROR": ""}
    return {"SNAPPY_ERROR": error.code if isinstance(error, SnappyError) else "internal"}
