"""Serves a target's files on the bus: control operations in a queue group, transfers at this replica."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import msgspec
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from snappy.bus.connection import Bus, serve
from snappy.bus.direct import AVAILABLE, Listener
from snappy.bus.failures import DirectoryInTheWay, to_wire
from snappy.bus.grants import Grant
from snappy.bus.operations import Operations
from snappy.bus.pieces import Payload
from snappy.bus.protocol import (
    MESSAGE_OVERHEAD,
    OPERATIONS,
    Answer,
    Open,
    OpenAnswer,
    Put,
    Read,
    ReadAnswer,
    frame_size,
    seal,
    unseal,
)
from snappy.bus.throttle import LONGEST_WAIT, Throttles
from snappy.bus.transfers import GetTransfer, PutTransfer, Transfer, answer_frame, given_again
from snappy.errors import BusError, SnappyError, Unavailable
from snappy.targets.guarded import GuardedDraft
from snappy.targets.policy import PolicyFileSystem

log = structlog.get_logger(module=__name__)

Gate = Callable[[str, str, str], Grant | None]
"""``(grant, caller, right)``; the grant as it was read. Raises AccessDenied or AttemptOver. Called from several
threads."""
OnAttack = Callable[[str, str], None]
"""``(subject, reply)`` of a request that was dropped because its answer would go to somebody else."""


class Limits(msgspec.Struct, frozen=True):
    """What bounds a server. ``remembered`` ended transfers still answer a caller that missed the first answer."""

    requests: int = 64
    transfers: int = 8
    """Each may hold a pack of 24 MiB and some frames; all of them have to stay below 400 MB."""
    threads: int = 16
    idle_seconds: float = 60.0
    wait_seconds: float = 5.0
    """How long an opening transfer waits for another to end before it is told to come back."""
    remembered: int = 1024


def open_gate(_grant: str, _caller: str, _right: str) -> None:
    """Lets everybody do what the policy allows: for tests, and where grants are off."""


def ignore_attack(_subject: str, _reply: str) -> None:
    """The default of ``on_attack``; the drop is in the log in any case."""


class Ended(NamedTuple):
    """What is remembered of a transfer."""

    caller: str
    outcome: Payload | None


class FileServer:
    """One replica of one target. ``start`` subscribes; ``close`` ends every transfer and unsubscribes.

    ``direct`` offers callers on this host the direct way, where the system has it."""

    def __init__(
        self,
        bus: Bus,
        files: PolicyFileSystem,
        *,
        target: str,
        replica: str = "",
        gate: Gate = open_gate,
        private_inboxes: bool = False,
        on_attack: OnAttack = ignore_attack,
        limits: Limits = Limits(),  # noqa: B008
        throttles: Throttles | None = None,
        direct: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bus, self._files, self.target = bus, files, target
        self.replica = replica or secrets.token_hex(4)
        self._gate, self._private, self._on_attack = gate, private_inboxes, on_attack
        self._limits, self._clock = limits, clock
        self._throttles = throttles or Throttles()
        self._pool = ThreadPoolExecutor(limits.threads, thread_name_prefix=f"files-{target}")
        self._places = asyncio.Semaphore(limits.transfers)
        self._transfers: dict[str, Transfer] = {}
        self._ended: OrderedDict[str, Ended] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscriptions: list[Subscription] = []
        self._direct = direct and AVAILABLE
        self._listener: Listener | None = None

    async def start(self) -> None:
        """Raises BusDenied or BusUnavailable."""
        self._operations = Operations(self._bus.nc.max_payload - MESSAGE_OVERHEAD)
        if self._direct:
            self._listener = Listener(self._welcome, self._limits.idle_seconds)
            self._listener.start()
        fs = self._bus.subjects.fs(self.target, "*", "*")
        data = self._bus.subjects.data(self.target, self.replica, "*", "*")
        self._subscriptions = [
            await self._bus.listen(data, "", self._on_frame),
            await serve(self._bus, fs, self.target, self._on_request, limit=self._limits.requests),
        ]

    async def close(self) -> None:
        """Unsubscribe, give up what is under way (nothing half-written stays) and wait for it."""
        for subscription in self._subscriptions:
            await unsubscribe(subscription)
        if self._listener is not None:
            await self._listener.close()
        running = list(self._tasks)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._pool.shutdown(wait=False)

    @property
    def transfers(self) -> int:
        """How many are under way."""
        return len(self._transfers)

    # ---- control operations

    async def _on_request(self, message: Msg) -> None:
        *_, name, caller = message.subject.split(".")
        if not self._may_answer(message, caller):
            return
        try:
            answer = await self._answer(name, caller, message.data)
        except SnappyError as error:
            answer = Answer(failure=to_wire(error))
        await self._bus.respond(message, seal(msgspec.structs.replace(answer, clock=self._clock())))

    async def _answer(self, name: str, caller: str, raw: bytes) -> Answer:
        if name not in OPERATIONS:
            raise BusError(f"a target has no operation {name!r}")
        request = unseal(raw, OPERATIONS[name].request)
        path: str = getattr(request, "path", "")
        try:
            return await self._perform(name, caller, request)
        except Exception as error:
            failure = to_wire(error, path)
            if failure.code == "internal":
                log.exception("operation failed", operation=name, caller=caller, path=path)
            return Answer(failure=failure)

    async def _perform(self, name: str, caller: str, request: Any) -> Answer:
        if isinstance(request, Open):
            return await self._open(caller, request)
        asker = Asker(self._gate, caller, request.grant)
        files = self._files.asking(asker)
        if isinstance(request, Read):
            return await self._read(files, asker, request)
        answer: Answer = await self._in_thread(self._operations.handlers[name], files, request)
        if isinstance(request, Put):
            await self._throttles.upload(asker.granted).take(len(request.data), LONGEST_WAIT)
        return answer

    # ---- transfers

    async def _open(self, caller: str, request: Open) -> OpenAnswer:
        asker = Asker(self._gate, caller, request.grant)
        files = self._files.asking(asker)
        await self._take_place()
        try:
            draft: GuardedDraft = await self._in_thread(_draft, files, request)
        except BaseException:
            self._places.release()
            raise
        pace = self._throttles.upload(asker.granted)
        frame = pace.frame(frame_size(request.max_payload, self._bus.nc.max_payload))
        token = self._begin(PutTransfer(draft, asker.renew, pace, *self._common(caller, request.path)))
        return OpenAnswer(**self._whereabouts(token, frame, request.user))

    async def _read(self, files: PolicyFileSystem, asker: Asker, request: Read) -> ReadAnswer:
        frame = frame_size(request.max_payload, self._bus.nc.max_payload)
        answer: ReadAnswer = await self._in_thread(_inline, files, request, frame)
        pace = self._throttles.download(asker.granted)
        if answer.data is not None:
            await pace.take(answer.size, LONGEST_WAIT)
            return answer
        frame = pace.frame(frame)
        await self._take_place()
        try:
            handle = await self._in_thread(files.open_range, request.path, request.start, answer.size)
        except BaseException:
            self._places.release()
            raise
        common = self._common(asker.caller, request.path)
        transfer = GetTransfer(handle, request.start, answer.size, frame, request.digest, pace, *common)
        token = self._begin(transfer)
        return msgspec.structs.replace(answer, **self._whereabouts(token, frame, request.user))

    def _whereabouts(self, token: str, frame: int, user: int) -> dict[str, Any]:
        """Of a transfer, for an OpenAnswer."""
        found: dict[str, Any] = {"replica": self.replica, "transfer": token, "frame": frame}
        if self._listener is not None and self._transfers[token].offer_line(user):
            found |= {"direct": self._listener.name, "user": os.geteuid()}
        return found

    def _welcome(self, token: str, line: socket.socket) -> bool:
        transfer = self._transfers.get(token)
        return transfer is not None and transfer.take_line(line)

    async def _take_place(self) -> None:
        try:
            async with asyncio.timeout(self._limits.wait_seconds):
                await self._places.acquire()
        except TimeoutError:
            raise Unavailable("the target is busy with other transfers") from None

    def _common(self, caller: str, path: str) -> tuple[Any, ...]:
        return caller, path, self._bus.publish, self._pool, self._clock

    def _begin(self, transfer: Transfer) -> str:
        token = secrets.token_hex(16)
        self._transfers[token] = transfer
        self._spawn(transfer.run(self._limits.idle_seconds)).add_done_callback(lambda _task: self._end(token))
        return token

    def _end(self, token: str) -> None:
        self._places.release()
        transfer = self._transfers.pop(token)
        self._ended[token] = Ended(transfer.caller, transfer.outcome)
        while len(self._ended) > self._limits.remembered:
            self._ended.popitem(last=False)

    async def _on_frame(self, message: Msg) -> None:
        *_, caller, token = message.subject.split(".")
        if not self._may_answer(message, caller):
            return
        transfer = self._transfers.get(token)
        if transfer is None or transfer.caller != caller:
            await self._bus.respond(message, self._outcome(token, caller))
        elif transfer.outcome is not None:
            await self._bus.respond(message, given_again(transfer.outcome, self._clock()))
        elif not transfer.feed(message.data, message.reply):
            await self._bus.respond(message, self._refusal(BusError("too many frames are under way")))

    def _outcome(self, token: str, caller: str) -> Payload:
        ended = self._ended.get(token)
        if ended is not None and ended.caller == caller and ended.outcome is not None:
            return given_again(ended.outcome, self._clock())
        return self._refusal(Unavailable("the target does not know this transfer (any more)"))

    def _refusal(self, error: SnappyError) -> Payload:
        return answer_frame(Answer(clock=self._clock(), failure=to_wire(error)))

    # ---- below

    def _may_answer(self, message: Msg, caller: str) -> bool:
        """Whether the answer goes to the caller that the subject names; what else is a request to write elsewhere."""
        if Bus.reply_allowed(message, caller, self._private):
            return True
        log.warning("request dropped, its answer would go elsewhere", subject=message.subject, reply=message.reply)
        self._on_attack(message.subject, message.reply)
        return False

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _in_thread(self, work: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)


class Asker:
    """Puts a right to the gate under the caller's grant, which a long transfer renews on its way.
    ``granted`` is what the gate read last."""

    def __init__(self, gate: Gate, caller: str, grant: str) -> None:
        self._gate, self.caller, self._grant = gate, caller, grant
        self.granted: Grant | None = None

    def __call__(self, right: str) -> Grant | None:
        self.granted = self._gate(self._grant, self.caller, right)
        return self.granted

    def renew(self, grant: str) -> None:
        self._grant = grant


async def unsubscribe(subscription: Subscription) -> None:
    try:
        await subscription.unsubscribe()
    except NatsError:
        log.debug("already unsubscribed", subject=subscription.subject)


def _draft(files: PolicyFileSystem, request: Open) -> GuardedDraft:
    return files.write(request.path, exclusive=request.mode == "create")


def _inline(files: PolicyFileSystem, request: Read, frame: int) -> ReadAnswer:
    """The bytes, where they fit one answer; else only how many there are."""
    if request.end is not None and request.end - request.start <= frame:
        return _data(files.cat_file(request.path, request.start, request.end))
    info = files.info(request.path)
    if info["type"] == "directory":
        raise DirectoryInTheWay(f"{request.path!r} is a directory")
    end = info["size"] if request.end is None else min(request.end, info["size"])
    size = max(0, end - request.start)
    if size > frame:
        return ReadAnswer(size=size)
    return _data(files.cat_file(request.path, request.start, end) if size else b"")


def _data(data: bytes) -> ReadAnswer:
    return ReadAnswer(data=data, size=len(data))
