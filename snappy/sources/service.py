"""The source service: runs where the data is, claims jobs for it, and answers for the repositories it has keys of."""

from __future__ import annotations

import asyncio
import secrets as random
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec
import msgspec
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from snappy import __version__, config, heap, log, secrets
from snappy.bus.connection import Bus
from snappy.bus.filesystem import SnappyFileSystem
from snappy.bus.micro import MicroService
from snappy.bus.pulling import Puller, again_soon
from snappy.bus.remote import Grant
from snappy.config import Allow
from snappy.errors import (
    BusUnavailable,
    JobCancelled,
    SnappyError,
    SourceError,
    UnknownKey,
    UsageError,
)
from snappy.jobs.command import Command
from snappy.jobs.heart import Heart
from snappy.jobs.kinds import read, typed_command
from snappy.jobs.messages import (
    Beat,
    Control,
    HoldAnswer,
    HoldRequest,
    Result,
    read_answer,
)
from snappy.jobs.upkeep import CopyCommand
from snappy.repository.progress import Progress
from snappy.repository.team import Workers, processors
from snappy.sources import allow, base, drills, hooks, tasks, worker_store
from snappy.sources.attempt import Attempt
from snappy.sources.held_store import HeldStore
from snappy.sources.hold import Hold
from snappy.sources.questions import Questions
from snappy.sources.reading import ReadPermit
from snappy.sources.site import Site
from snappy.sources.workshop import Origin, Workshop

ANSWER_SECONDS = 5.0
CLAIM_TRIES = 4
CLAIM_RETRY_SECONDS = 0.5
MOST_WORKERS = 8
"""Worker processes of a backup, unless the settings say more."""
WORKER_MIB = 128
"""What one worker takes at most, in MiB of memory."""
LONG_SECONDS = 1.0
"""A job that takes less has little in memory: to look for that takes 10 ms of the processor."""

_log = log.get(__name__)


class SourceService:
    """One replica of one source service.

    ``nats`` is how its data connections reach the bus; ``passwords`` gives the password of a key's name, by default
    what the settings say; ``rules`` takes the place of the settings' rules for every submitter.
    ``private_inboxes``: the NATS server authenticates, and each user has an inbox of its own.
    ``index_cache``: the folder in which what repositories' index files say is kept from job to job; None for none.
    ``work``: the folder in which plug-ins and drills work, unless the settings name one.
    """

    def __init__(
        self,
        bus: Bus,
        name: str,
        settings: config.SourceService,
        nats: config.Nats,
        *,
        passwords: Callable[[str], str] | None = None,
        rules: Allow | None = None,
        private_inboxes: bool = True,
        index_cache: Path | None = None,
        work: str = "",
    ) -> None:
        self._bus, self.name, self._settings, self._nats = bus, name, settings, nats
        self.replica = settings.replica or random.token_hex(4)
        self._passwords = passwords or self._configured_password
        self._rules = rules
        self._site = Site(name, settings.plugins, settings.work or work, settings.drills, settings.hooks)
        self._index_cache = index_cache
        self._holds: dict[str, Hold] = {}
        self._slots = asyncio.Semaphore(settings.concurrent_jobs)
        self._attempts: set[asyncio.Task[None]] = set()
        self._started = time.time()
        self._questions = Questions(
            bus,
            name,
            rules_for=self._rules_for,
            files=self._files,
            ask_read=self._ask_read,
            passwords=self._passwords,
            index_cache=index_cache,
            private=private_inboxes,
        )
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Serve until cancelled; jobs under way are then given back. Raises UsageError for settings of plug-ins."""
        _check_plugins(self._settings.plugins, self._site)
        _configure_storage(self._settings.storage_options)
        threading.Thread(target=self._site.tidy, args=(drills.FOLDER,), name="tidy", daemon=True).start()
        hooks.undo_left_beside(self._site)
        subjects = self._bus.subjects
        micro = MicroService(
            self._bus,
            "snappy-source",
            __version__,
            description=f"source service {self.name}",
            metadata=self._metadata(),
        )
        heart = self._heart()
        await heart.first()
        await self._bus.listen(subjects.control(self.name), "", self._on_control)
        await micro.begin()
        await self._questions.begin(micro)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(heart.keep())
                group.create_task(self._questions.keep())
                group.create_task(self._take_calls(repair=heart.once))
                self.ready.set()
        finally:
            await self._stop(micro)

    async def _stop(self, micro: MicroService) -> None:
        for attempt in self._attempts:
            attempt.cancel()
        await asyncio.gather(*self._attempts, return_exceptions=True)
        await self._questions.close()
        try:
            await micro.stop()
        except (NatsError, OSError) as error:
            _log.debug("the micro service did not stop cleanly", reason=str(error))

    def _metadata(self) -> dict[str, str]:
        schemas = {name: msgspec.json.encode(schema).decode() for name, schema in _plugin_schemas().items()}
        return {
            "service": self.name,
            "replica": self.replica,
            **{f"plugin.{name}": text for name, text in schemas.items()},
        }

    def _heart(self) -> Heart:
        beat = Beat(
            service=self.name,
            replica=self.replica,
            role="source",
            version=__version__,
            plugins=_plugin_schemas(),
            keys=sorted(self._settings.keys),
            started=self._started,
        )
        return Heart(self._bus, beat)

    # ---- jobs

    async def _ask_core(self, verb: str, request: HoldRequest) -> HoldAnswer:
        """Raises what the core answered, or BusError."""
        subject = self._bus.subjects.hold(verb, self.name, self.replica)
        body = await self._bus.request(subject, msgspec.json.encode(request), timeout=ANSWER_SECONDS)
        answer = read_answer(body, HoldAnswer)
        if answer.error:
            raise answer.error.to_error()
        return answer

    async def _take_calls(self, repair: Callable[[], Awaitable[None]]) -> None:
        subjects = self._bus.subjects
        puller = Puller(self._bus, subjects.work_stream, subjects.work_durable(self.name), batch=1, repair=repair)
        calls = puller.batches()
        while True:
            await self._slots.acquire()
            taken = False
            try:
                for call in await anext(calls):
                    taken = await self._answer_call(call)
            finally:
                if not taken:
                    self._slots.release()

    async def _answer_call(self, call: Msg) -> bool:
        """Claim, and only then acknowledge: a call that was not answered comes again."""
        try:
            answer, asked = await self._claim()
        except SnappyError as error:
            _log.warning("a call was not answered", reason=str(error))
            await again_soon(call)
            return False
        with suppress(NatsError, OSError):
            await call.ack()
        if answer.job is None:
            return False
        hold = Hold(self._bus, self.name, self.replica, answer, asked)
        self._start(hold)
        return True

    async def _claim(self) -> tuple[HoldAnswer, float]:
        """The core's answer, and when it was asked (monotonic seconds). A claim whose answer was lost is asked again
        by its nonce, since the job that it got would otherwise wait until the hold on it runs out."""
        request = HoldRequest(nonce=random.token_hex(16))
        for _ in range(CLAIM_TRIES - 1):
            asked = time.monotonic()
            try:
                return await self._ask_core("claim", request), asked
            except BusUnavailable as error:
                _log.warning("a claim is asked again", reason=error.message)
                request = msgspec.structs.replace(request, again=True)
            await asyncio.sleep(CLAIM_RETRY_SECONDS)
        asked = time.monotonic()
        return await self._ask_core("claim", request), asked

    def _start(self, hold: Hold) -> None:
        self._holds[hold.job.id] = hold
        attempt = asyncio.create_task(Attempt(self._bus, self.name, self.replica, hold, self._work).run())
        self._attempts.add(attempt)
        began = time.monotonic()

        def ended(task: asyncio.Task[None]) -> None:
            self._attempts.discard(task)
            self._slots.release()
            if self._holds.get(hold.job.id) is hold:
                del self._holds[hold.job.id]
            if time.monotonic() - began >= LONG_SECONDS:
                asyncio.get_running_loop().run_in_executor(None, heap.let_go)
            if not task.cancelled() and (error := task.exception()):
                _log.error("an attempt broke off; its hold will run out", job=hold.job.id, exc_info=error)

        attempt.add_done_callback(ended)

    async def _work(self, hold: Hold, progress: Progress) -> Result:
        """Check what is asked, then do it. Raises Denied before anything is touched."""
        command = typed_command(hold.job.kind, hold.job.command)
        rules = self._rules_for(hold.job.submitter)
        kind = "backup" if hold.job.follows else hold.job.kind  # who may have a backup at two targets needs no more
        allow.check(tasks.asked(kind, command), rules, hold.job.submitter)
        task = await asyncio.to_thread(tasks.prepare, kind, command, self._site)
        await asyncio.to_thread(allow.check, task.asks, rules, hold.job.submitter)
        password = await asyncio.to_thread(self._passwords, command.key)
        async with self._files(command.target, hold.grant) as files, self._origin(command, hold) as origin:
            shop = Workshop(
                hold=hold,
                store=self._held(files, command.target, hold),
                password=password,
                progress=progress,
                origin=origin,
                owner=f"snappy.{self.name}.{self.replica}",
                host=self._settings.host or socket.gethostname(),
                index_cache=self._index_cache,
                workers=self._workers(),
                passwords=self._passwords,
            )
            result = await task.work(shop)
            return msgspec.structs.replace(result, kept_until=shop.store.kept_until)

    @asynccontextmanager
    async def _origin(self, command: Command, hold: Hold) -> AsyncIterator[Origin | None]:
        """The repository that the job copies, if it does; it has the right to read it."""
        if not isinstance(command, CopyCommand):
            yield None
            return
        password = await asyncio.to_thread(self._passwords, command.origin_key)
        permit = ReadPermit(command.origin, self._ask_read, hold)
        async with self._files(command.origin, permit.grant) as files, permit.kept():
            yield Origin(HeldStore(files, "", permit, patience=self._settings.patience_seconds), password)

    def _held(self, files: SnappyFileSystem, target: str, hold: Hold) -> HeldStore:
        patience = self._settings.patience_seconds
        prefix = self._bus.subjects.prefix
        recipe = worker_store.recipe(target, self._bus.user, prefix, self._nats, patience, self._settings.direct, hold)
        return HeldStore(files, "", hold, recipe, patience=patience)

    def _workers(self) -> Workers:
        most = self._settings.workers or min(processors(), MOST_WORKERS)
        if self._settings.memory_mib:
            most = min(most, self._settings.memory_mib // WORKER_MIB)
        return Workers(most=most, niceness=self._settings.niceness)

    def _rules_for(self, submitter: str) -> Allow:
        return self._rules or allow.rules_for(submitter, self._settings.allow, self._settings.scratch)

    def _configured_password(self, key: str) -> str:
        secret = self._settings.keys.get(key)
        if secret is None:
            known = ", ".join(sorted(self._settings.keys)) or "none"
            raise UnknownKey(f"{self.name} has no key {key!r}", hint=f"its keys are: {known}")
        try:
            password = secrets.read(secret)
        except UsageError as error:
            _log.error("a password cannot be read", key=key, reason=error.message)
            password = ""
        if not password:
            raise UsageError(f"{self.name} cannot read the password of key {key!r}", hint="its log says why")
        return password

    @asynccontextmanager
    async def _files(self, target: str, grant: Grant) -> AsyncIterator[SnappyFileSystem]:
        """A target's files, over a connection of their own. What is read of them proves itself: every file and every
        blob has its SHA-256 or a MAC."""
        files = SnappyFileSystem(
            target,
            caller=self._bus.user,
            grant=grant,
            prefix=self._bus.subjects.prefix,
            nats=self._nats,
            read_digest=False,
            direct=self._settings.direct,
        )
        try:
            yield files
        finally:
            await asyncio.to_thread(files.close)

    async def _on_control(self, message: Msg) -> None:
        try:
            control = read(message.data, Control)
        except msgspec.MsgspecError as error:
            _log.warning("a control message was not understood", reason=str(error))
            return
        hold = self._holds.get(control.job)
        if control.verb == "cancel" and hold:
            hold.end(JobCancelled())

    async def _ask_read(self, target: str) -> HoldAnswer:
        return await self._ask_core("read", HoldRequest(target=target))


def _configure_storage(options: dict[str, dict[str, Any]]) -> None:
    """A job names a URL and never how it is opened; fsspec finds that here."""
    for protocol, chosen in options.items():
        fsspec.config.conf.setdefault(protocol, {}).update(chosen)


def _check_plugins(plugins: Iterable[str], site: Site) -> None:
    for name in plugins:
        try:
            schema = base.settings_of(base.load(name))
        except SourceError as error:
            raise UsageError(f"source.{site.name}.plugins: {error.message}", hint=error.hint) from error
        site.check(name, schema)


def _plugin_schemas() -> dict[str, dict[str, Any]]:
    """The JSON schemas of each installed plug-in's options and settings."""
    found: dict[str, dict[str, Any]] = {}
    for name in base.names():
        try:
            found[name] = base.schemas_of(base.load(name))
        except SourceError as error:
            _log.error("a plug-in is left out", reason=error.message)
    return found
