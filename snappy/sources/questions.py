"""What a source service is asked about the repositories that it has keys of, outside of jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from nats.aio.msg import Msg

from snappy import log
from snappy.bus.connection import Bus
from snappy.bus.micro import MicroService
from snappy.config import Allow
from snappy.errors import InternalError, SnappyError, SnapshotNotFound
from snappy.jobs import verbs
from snappy.jobs.api_words import BlobRequest, LocateRequest, Reply, SnapshotsRequest, TreesRequest
from snappy.jobs.kinds import read
from snappy.jobs.messages import ErrorInfo
from snappy.jobs.verbs import Verb
from snappy.repository.repo import Repository
from snappy.repository.store import Store
from snappy.sources import allow, browsing
from snappy.sources.browsing import AskRead, BrowseDesk, Files

Work = Callable[[str, bytes], Awaitable[Reply]]
"""Answers a caller's question, given its body. Raises SnappyError and MsgspecError."""

_log = log.get(__name__)


class Questions:
    """Answers for the service ``name``. ``rules_for`` gives a caller's rules, ``files`` a target's files, ``ask_read``
    the core's grant to read them, ``passwords`` a key's password. ``private``: each user has an inbox of its own."""

    def __init__(
        self,
        bus: Bus,
        name: str,
        *,
        rules_for: Callable[[str], Allow],
        files: Files,
        ask_read: AskRead,
        passwords: Callable[[str], str],
        index_cache: Path | None,
        private: bool,
    ) -> None:
        self._bus, self._name, self._private = bus, name, private
        self._rules_for, self._files, self._ask_read, self._passwords = rules_for, files, ask_read, passwords
        self._desk = BrowseDesk(files, ask_read, passwords, index_cache, lambda: bus.nc.max_payload * 2 // 3)
        self._answers: set[asyncio.Task[None]] = set()

    async def begin(self, micro: MicroService) -> None:
        """Listen."""
        await self._add(micro, verbs.SNAPSHOTS_LIST, self._list_snapshots)
        await self._add(micro, verbs.BLOBS_LOCATE, self._locate)
        await self._add(micro, verbs.BLOBS_GET, self._piece)
        await self._add(micro, verbs.TREES_GET, self._trees)

    async def keep(self) -> None:
        """Close what nobody asks about any more, for ever."""
        await self._desk.keep_tidy()

    async def close(self) -> None:
        """After the last answer."""
        await asyncio.gather(*self._answers, return_exceptions=True)
        await self._desk.close()

    async def _add(self, micro: MicroService, verb: Verb, work: Work) -> None:
        """Each question is answered beside others: to open a repository takes long."""

        async def on_question(message: Msg) -> None:
            answer = asyncio.create_task(self._answer(message, work))
            self._answers.add(answer)
            answer.add_done_callback(self._answers.discard)

        subject = self._bus.subjects.ask(self._name, verb.noun, verb.verb, "*")
        await micro.add(verb.name, subject, on_question, queue=self._name)

    async def _answer(self, message: Msg, work: Work) -> None:
        caller = self._bus.subjects.parse_call(message.subject).caller
        if not self._bus.reply_allowed(message, caller, self._private):
            _log.warning("a question with a forged reply was dropped", subject=message.subject)
            return
        try:
            reply = await work(caller, message.data)
        except msgspec.MsgspecError as error:
            reply = Reply(error=ErrorInfo(code="invalid-command", message=str(error)))
        except SnappyError as error:
            reply = Reply(error=ErrorInfo.of(error))
        except Exception:
            _log.exception("a question cannot be answered", subject=message.subject)
            reply = Reply(error=ErrorInfo.of(InternalError("the question cannot be answered")))
        await self._bus.respond(message, fitting(reply, self._bus.nc.max_payload))

    async def _locate(self, caller: str, body: bytes) -> Reply:
        request = read(body, LocateRequest)
        browsing.check(self._rules_for(caller), request.target, caller)
        return Reply(places=await self._desk.locate(request))

    async def _piece(self, caller: str, body: bytes) -> Reply:
        request = read(body, BlobRequest)
        browsing.check(self._rules_for(caller), request.target, caller)
        return Reply(piece=await self._desk.piece(request))

    async def _trees(self, caller: str, body: bytes) -> Reply:
        request = read(body, TreesRequest)
        browsing.check(self._rules_for(caller), request.target, caller)
        return Reply(trees=await self._desk.trees(request))

    async def _list_snapshots(self, caller: str, body: bytes) -> Reply:
        request = read(body, SnapshotsRequest)
        allow.check(allow.Ask(kind="snapshots", target=request.target), self._may_look(caller), caller)
        answer = await self._ask_read(request.target)
        password = await asyncio.to_thread(self._passwords, request.key)
        async with self._files(request.target, answer.grant) as files:
            found = await asyncio.to_thread(_read_snapshots, Store(files, ""), password)
        return Reply(snapshots=older(found, request.before))

    def _may_look(self, caller: str) -> Allow:
        """Who may use a target may also see which snapshots are kept there."""
        return msgspec.structs.replace(self._rules_for(caller), kinds=[allow.ALL])


def fitting(reply: Reply, max_payload: int) -> bytes:
    """The newest snapshots that one message can hold; or whatever else the reply says."""
    body = msgspec.json.encode(reply)
    while len(reply.snapshots or ()) > 1 and len(body) > max_payload - 1024:
        assert reply.snapshots is not None
        half = reply.snapshots[len(reply.snapshots) // 2 :]
        reply = msgspec.structs.replace(reply, snapshots=half, more=True)
        body = msgspec.json.encode(reply)
    return body


def older(snapshots: list[dict[str, Any]], before: str) -> list[dict[str, Any]]:
    """Those that stand before the one of that id; all of them for an empty one. Raises SnapshotNotFound."""
    ids = [snapshot["id"] for snapshot in snapshots]
    if before and before not in ids:
        raise SnapshotNotFound(f"the snapshot {before[:8]} was removed while the list was read", hint="ask again")
    return snapshots[: ids.index(before)] if before else snapshots


def _read_snapshots(store: Store, password: str) -> list[dict[str, Any]]:
    """Oldest first, each as restic's ``snapshots --json`` shows it."""
    with Repository.open(store, password) as repository:
        found = repository.snapshots()
    return [{**msgspec.to_builtins(snap), "id": snap.id, "short_id": snap.id[:8]} for snap in found]
