"""The streams, buckets and consumers, as data, and the one function that sees to it that they are there.

Configurations are in JetStream's own words (https://docs.nats.io/nats-concepts/jetstream/streams), sizes in bytes,
durations in seconds. An operator may make any of them beforehand: :data:`FIRM` fields must be as here, the limits and
the placement are the operator's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from snappy import log
from snappy.bus.connection import Bus
from snappy.bus.subjects import Subjects
from snappy.errors import BusError, StreamMismatch

MIB = 1 << 20
COMMAND_BYTES = 64 << 10
"""The largest command."""
COMMANDS_PER_SUBMITTER = 10_000
"""Commands of one kind that one submitter may have waiting."""
DUPLICATE_SECONDS = 120
ACK_SECONDS = 30
CORE_ACK_SECONDS = 5
"""A core, or the audit, says when it needs longer, so that what a dead one held soon comes to another."""
OBSERVER_IDLE_SECONDS = 30 * 86400
"""An observer who does not come for so long begins anew."""
FIRM = (
    "subjects",
    "retention",
    "storage",
    "discard",
    "discard_new_per_subject",
    "max_msgs_per_subject",
    "duplicate_window",
    "allow_msg_schedules",
    "allow_rollup_hdrs",
    "deny_delete",
    "deny_purge",
    "no_ack",
    "sealed",
    "mirror",
    "sources",
    "republish",
    "subject_transform",
    "persist_mode",
)
"""Fields in which an operator's stream may not differ; ``num_replicas`` may be more than asked, never less."""

_API_SECONDS = 10.0
_log = log.get(__name__)
_NOT_FOUND = (10014, 10059)
_NAME_TAKEN = (10058, 10148)


@dataclass(frozen=True)
class Stream:
    """One stream. ``per_subject`` is -1 for no limit; with ``refuse_new`` a full stream refuses what is new."""

    name: str
    description: str
    subjects: list[str]
    max_bytes: int
    retention: str = "limits"
    refuse_new: bool = True
    per_subject: int = -1
    max_msg_size: int = -1
    extra: dict[str, Any] = field(default_factory=dict)

    def config(self, replicas: int = 1) -> dict[str, Any]:
        """What JetStream's API takes."""
        return {
            "name": self.name,
            "description": self.description,
            "subjects": self.subjects,
            "retention": self.retention,
            "storage": "file",
            "discard": "new" if self.refuse_new else "old",
            "discard_new_per_subject": False,
            "max_bytes": self.max_bytes,
            "max_msgs": -1,
            "max_msgs_per_subject": self.per_subject,
            "max_msg_size": self.max_msg_size,
            "max_age": 0,
            "max_consumers": -1,
            "num_replicas": replicas,
            "duplicate_window": DUPLICATE_SECONDS * 10**9,
            **self.extra,
        }


@dataclass(frozen=True)
class Consumer:
    """A durable pull consumer with explicit acknowledgement; workers bind to it and need no right to make one."""

    stream: str
    name: str
    filter: str = ""
    ack_seconds: int = ACK_SECONDS
    only_new: bool = False
    idle_seconds: int = 0
    """After so long without a pull the server removes it; 0: never."""

    def config(self) -> dict[str, Any]:
        return {
            "durable_name": self.name,
            "name": self.name,
            "filter_subject": self.filter,
            "ack_policy": "explicit",
            "ack_wait": self.ack_seconds * 10**9,
            "deliver_policy": "new" if self.only_new else "all",
            "inactive_threshold": self.idle_seconds * 10**9,
            "replay_policy": "instant",
            "max_deliver": -1,
            "max_ack_pending": 1000,
        }


@dataclass(frozen=True)
class Observer:
    """A caller's own consumer, as the server has it. ``unread``: so many messages wait to be acknowledged."""

    stream: str
    name: str
    filter: str
    unread: int


def streams(subjects: Subjects) -> list[Stream]:
    """Every stream of the design, without the buckets. With the buckets they reserve 2.5 GiB at most."""
    p = subjects.prefix
    queue = {"discard_new_per_subject": True}
    return [
        Stream(
            subjects.commands_stream,
            "job commands, until the core has accepted them",
            subjects.all_commands,
            512 * MIB,
            retention="workqueue",
            per_subject=COMMANDS_PER_SUBMITTER,
            max_msg_size=COMMAND_BYTES,
            extra=queue,
        ),
        Stream(
            subjects.work_stream,
            "calls for workers",
            [f"{p}.work.*"],
            64 * MIB,
            retention="workqueue",
            per_subject=100_000,
            extra=queue,
        ),
        Stream(
            subjects.reports_stream,
            "what workers say of their attempts, until the core has read it",
            [f"{p}.report.*.*"],
            256 * MIB,
            retention="workqueue",
        ),
        Stream(
            subjects.schedules_stream,
            "schedules, and the newest firing of each; only the core may publish here",
            [subjects.schedule("*"), subjects.due("*")],
            -1,  # the server allows no "discard new" here, and to discard a schedule would lose backups
            refuse_new=False,
            per_subject=1,
            extra={"allow_msg_schedules": True, "allow_rollup_hdrs": True},
        ),
        Stream(
            subjects.events_stream,
            "events of jobs; the oldest leave when it is full, so the audit must not be away for a GiB of them",
            [subjects.event("*", "*", "*")],
            1024 * MIB,
            refuse_new=False,
            extra={"deny_delete": True, "deny_purge": True},
        ),
    ]


def buckets(subjects: Subjects) -> list[Stream]:
    """The key-value buckets, with one value a key (https://github.com/nats-io/nats-architecture-and-design, ADR-8)."""
    sizes = {subjects.jobs_bucket: 512, subjects.holds_bucket: 32, subjects.services_bucket: 32}
    return [
        Stream(
            f"KV_{name}",
            "",
            [f"$KV.{name}.>"],
            mebibytes * MIB,
            per_subject=1,
            extra={"allow_rollup_hdrs": True, "deny_delete": True, "allow_direct": True},
        )
        for name, mebibytes in sizes.items()
    ]


def consumers(subjects: Subjects) -> list[Consumer]:
    """What the core and the audit read."""
    return [
        Consumer(subjects.commands_stream, subjects.core_durable, ack_seconds=CORE_ACK_SECONDS),
        Consumer(subjects.reports_stream, subjects.core_durable, ack_seconds=CORE_ACK_SECONDS),
        Consumer(subjects.schedules_stream, subjects.core_durable, subjects.due("*"), ack_seconds=CORE_ACK_SECONDS),
        Consumer(subjects.events_stream, subjects.audit_durable, ack_seconds=CORE_ACK_SECONDS),
    ]


async def ensure(bus: Bus, replicas: int = 1) -> None:
    """Make what is missing; harmless when repeated or run by several cores at once.

    Raises StreamMismatch where something of that name exists that Snappy cannot work with.
    """
    for stream in [*streams(bus.subjects), *buckets(bus.subjects)]:
        await _ensure_stream(bus, stream, replicas)
    for consumer in consumers(bus.subjects):
        await _ensure_consumer(bus, consumer)


async def ensure_work_consumer(bus: Bus, service: str) -> None:
    """Make the durable from which the replicas of a source service hear their calls; harmless when repeated."""
    subjects = bus.subjects
    await _ensure_consumer(bus, Consumer(subjects.work_stream, subjects.work_durable(service), subjects.work(service)))


async def ensure_observer(bus: Bus, caller: str, subject: str, *, only_new: bool) -> Consumer:
    """Make the durable from which a caller pulls events; harmless when repeated. Raises StreamMismatch where it has
    one for another ``subject``."""
    subjects = bus.subjects
    name = subjects.observer_durable(caller)
    consumer = Consumer(subjects.events_stream, name, subject, only_new=only_new, idle_seconds=OBSERVER_IDLE_SECONDS)
    await _ensure_consumer(bus, consumer)
    return consumer


async def observer(bus: Bus, caller: str) -> Observer | None:
    """What a caller's durable lets through, and how much of that waits; None if it has none."""
    stream, name = bus.subjects.events_stream, bus.subjects.observer_durable(caller)
    answer = await _api(bus, f"CONSUMER.INFO.{stream}.{name}")
    if _code(answer) in _NOT_FOUND:
        return None
    if "error" in answer:
        raise BusError(f"the consumer {stream}.{name} cannot be looked at: {answer['error'].get('description', '')}")
    return Observer(stream, name, answer["config"]["filter_subject"], answer["num_pending"] + answer["num_ack_pending"])


async def remove_observer(bus: Bus, caller: str) -> None:
    """Harmless when repeated."""
    subjects = bus.subjects
    where = f"{subjects.events_stream}.{subjects.observer_durable(caller)}"
    answer = await _api(bus, f"CONSUMER.DELETE.{where}")
    if "error" in answer and _code(answer) not in _NOT_FOUND:
        raise BusError(f"the consumer {where} cannot be removed: {answer['error'].get('description', '')}")


async def _ensure_stream(bus: Bus, stream: Stream, replicas: int) -> None:
    wanted = stream.config(replicas)
    answer = await _api(bus, f"STREAM.INFO.{stream.name}")
    if _code(answer) in _NOT_FOUND:
        answer = await _api(bus, f"STREAM.CREATE.{stream.name}", wanted)
        if _code(answer) in _NAME_TAKEN:
            answer = await _api(bus, f"STREAM.INFO.{stream.name}")
    found = _config(answer, f"stream {stream.name}")
    for name in FIRM:
        _compare(f"stream {stream.name}", name, wanted.get(name), found.get(name))
    if found.get("num_replicas", 1) < replicas:
        await _replicate(bus, stream.name, found | {"num_replicas": replicas}, found.get("num_replicas", 1))


async def _replicate(bus: Bus, name: str, config: dict[str, Any], found: int) -> None:
    """Have more servers keep a stream that was made for ``found``. Raises StreamMismatch if there are not so many."""
    _log.warning("a stream gets more replicas", stream=name, replicas=config["num_replicas"])
    answer = await _api(bus, f"STREAM.UPDATE.{name}", config)
    if "error" in answer:
        _log.error("the server keeps no more replicas", stream=name, reason=answer["error"].get("description", ""))
        _differs(f"stream {name}", "num_replicas", config["num_replicas"], found)


async def _ensure_consumer(bus: Bus, consumer: Consumer) -> None:
    wanted = consumer.config()
    where = f"{consumer.stream}.{consumer.name}"
    answer = await _api(bus, f"CONSUMER.INFO.{where}")
    if _code(answer) in _NOT_FOUND:
        answer = await _put_consumer(bus, consumer, wanted)
        if _code(answer) in _NAME_TAKEN:
            answer = await _api(bus, f"CONSUMER.INFO.{where}")
    found = _config(answer, f"consumer {where}")
    for name in ("filter_subject", "ack_policy", "deliver_subject", "max_deliver"):
        _compare(f"consumer {where}", name, wanted.get(name), found.get(name))
    if found.get("ack_wait", 0) > wanted["ack_wait"]:  # as an older Snappy made it
        _config(await _put_consumer(bus, consumer, found | {"ack_wait": wanted["ack_wait"]}), f"consumer {where}")


async def _put_consumer(bus: Bus, consumer: Consumer, config: dict[str, Any]) -> dict[str, Any]:
    """Make it, or change what may be changed."""
    suffix = f".{consumer.filter}" if consumer.filter else ""
    body = {"stream_name": consumer.stream, "config": config, "action": ""}
    return await _api(bus, f"CONSUMER.CREATE.{consumer.stream}.{consumer.name}{suffix}", body)


def _compare(where: str, name: str, wanted: Any, found: Any) -> None:
    """The server leaves out what is false, zero or empty."""
    if isinstance(wanted, list):
        wanted, found = sorted(wanted), sorted(found or [])
    if (wanted or None) != (found or None):
        _differs(where, name, wanted, found)


def _differs(where: str, name: str, wanted: Any, found: Any) -> None:
    raise StreamMismatch(
        f"{where} exists with {name} {found!r}, and Snappy needs {wanted!r}",
        hint="change it with the nats command line, or choose another prefix",
        where=where,
        field=name,
        wanted=wanted,
        found=found,
    )


async def _api(bus: Bus, call: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    raw = json.dumps(body).encode() if body is not None else b""
    answer: dict[str, Any] = json.loads(await bus.request(f"$JS.API.{call}", raw, timeout=_API_SECONDS))
    return answer


def _code(answer: dict[str, Any]) -> int:
    code: int = answer.get("error", {}).get("err_code", 0)
    return code


def _config(answer: dict[str, Any], where: str) -> dict[str, Any]:
    if "error" in answer:
        raise BusError(f"{where} cannot be made: {answer['error'].get('description', '')} ({_code(answer)})")
    found: dict[str, Any] = answer["config"]
    return found
