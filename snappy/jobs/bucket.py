"""One JetStream key-value bucket (ADR-8), as the core needs it: compare-and-set, reads from the leader, changes.

nats-py's KeyValue loses a timed-out write's outcome and follows changes by a push consumer that may be silent for
seconds. Here each write carries a message id, which tells whose the stored value is; changes are asked for by sequence.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, NamedTuple

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from snappy.bus.connection import MESSAGE_ID, Bus
from snappy.errors import BusError, BusUnavailable, WrongSequence

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
NOT_FOUND = 10037


class Entry(NamedTuple):
    """``revision`` is the sequence of the bucket's stream; an empty value: the key was deleted."""

    key: str
    value: bytes
    revision: int


class Bucket:
    """Keys may hold ``-/_=.a-zA-Z0-9``. Every method raises BusUnavailable when the bucket does not answer."""

    def __init__(self, bus: Bus, name: str, *, timeout: float = 5.0, batch: int = 500) -> None:
        self.stream = f"KV_{name}"
        self._bus = bus
        self._prefix = f"$KV.{name}."
        self._timeout = timeout
        self._batch = batch

    async def get(self, key: str) -> Entry | None:
        """The newest value, as the bucket's leader has it."""
        found = await self._newest(key)
        value = base64.b64decode(found.get("data", "")) if found else b""
        return Entry(key, value, found["seq"]) if found and value else None

    async def put(self, key: str, value: bytes) -> int:
        """Whatever is there; the new revision."""
        return (await self._bus.store(self._prefix + key, value)).seq

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Only if the newest revision is ``revision`` (0: no such key); the new one. Raises WrongSequence."""
        nonce = secrets.token_hex(16)
        headers = {EXPECTED: str(revision)}
        try:
            return (await self._bus.store(self._prefix + key, value, headers=headers, message_id=nonce)).seq
        except WrongSequence:
            # a first try whose answer was lost: the server looks at the sequence before it looks for repeats
            found = await self._newest(key)
            if found and f"{MESSAGE_ID}: {nonce}".encode() in base64.b64decode(found.get("hdrs", "")):
                return int(found["seq"])
            raise

    async def remove(self, key: str, revision: int) -> bool:
        """Take the key away, without a marker, unless it has changed since ``revision``; whether it did."""
        body = {"filter": self._prefix + key, "seq": revision + 1}
        answer = await self._ask(f"STREAM.PURGE.{self.stream}", body)
        if "error" in answer:
            raise _error(answer)
        return bool(answer["purged"])

    async def changes(self, after: int, keys: str = ">") -> AsyncIterator[Entry]:
        """The newest value of each key of a pattern that changed after the revision ``after``, by revision."""
        more = True
        while more:
            entries, more = await self._read_batch(after, keys)
            for entry in entries:
                after = entry.revision
                yield entry

    async def _newest(self, key: str) -> dict[str, Any] | None:
        answer = await self._ask(f"STREAM.MSG.GET.{self.stream}", {"last_by_subj": self._prefix + key})
        if "error" in answer:
            if answer["error"].get("err_code") == NOT_FOUND:
                return None
            raise _error(answer)
        found: dict[str, Any] = answer["message"]
        return found

    async def _read_batch(self, after: int, keys: str) -> tuple[list[Entry], bool]:
        """Direct get of many (ADR-31): messages on an inbox, the last one empty, with a status."""
        arrived: asyncio.Queue[Msg] = asyncio.Queue()
        inbox = self._bus.nc.new_inbox()
        body = {"seq": after + 1, "next_by_subj": self._prefix + keys, "batch": self._batch}
        try:
            subscription = await self._bus.nc.subscribe(inbox, cb=arrived.put)
            try:
                subject = f"$JS.API.DIRECT.GET.{self.stream}"
                await self._bus.nc.publish(subject, json.dumps(body).encode(), reply=inbox)
                return await self._collect(arrived)
            finally:
                with suppress(NatsError, OSError):
                    await subscription.unsubscribe()
        except (NatsError, OSError) as error:
            raise BusUnavailable(f"the bucket {self.stream} cannot be read: {error}") from error

    async def _collect(self, arrived: asyncio.Queue[Msg]) -> tuple[list[Entry], bool]:
        entries: list[Entry] = []
        try:
            async with asyncio.timeout(self._timeout):
                while not (headers := (message := await arrived.get()).headers or {}).get("Status"):
                    key = headers["Nats-Subject"].removeprefix(self._prefix)
                    entries.append(Entry(key, message.data, int(headers["Nats-Sequence"])))
        except TimeoutError as error:
            raise BusUnavailable(f"the bucket {self.stream} does not answer") from error
        status = headers["Status"]
        if status not in ("204", "404"):
            raise BusUnavailable(f"the bucket {self.stream} answers {status} {headers.get('Description', '')}".strip())
        return entries, bool(entries) and int(headers.get("Nats-Num-Pending", "0")) > 0

    async def _ask(self, call: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self._bus.request(f"$JS.API.{call}", json.dumps(body).encode(), timeout=self._timeout)
        decoded: dict[str, Any] = json.loads(answer)
        return decoded


def _error(answer: dict[str, Any]) -> BusError:
    error = answer["error"]
    kind = BusUnavailable if error.get("code") == 503 else BusError
    return kind(f"JetStream says: {error.get('description', '')} ({error.get('err_code', 0)})")
