"""One AsyncAPI 3.0 document that names every subject of :mod:`snappy.bus.subjects` and the messages on it.

The document speaks for Snappy as a whole: an operation *receives* what strangers or other services send to the one
that answers, and *sends* what they may read. Addresses come from :class:`Subjects` itself, with the tokens' names in
braces.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from snappy import __version__
from snappy.bus import protocol
from snappy.bus.subjects import Subjects
from snappy.jobs import (
    api_words,
    audit_words,
    kinds,
    messages,
    protection_words,
    refusal_words,
    repository_words,
    schedule_words,
)
from snappy.jobs.states import Event
from snappy.jobs.verbs import VERBS, Verb
from snappy.schemas.structs import Document, Struct, all_structs, file_name, file_structs

NAMES = Subjects()
FRAME = "Frame"
PARAMETERS = {
    "kind": "the kind of job",
    "submitter": "the user who asks, or `anyone` where authentication is off",
    "caller": "the user who asks; the server's permissions bind the token to the user",
    "service": "the name of a source or target service",
    "replica": "one process of the service",
    "verb": "what is asked",
    "noun": "what it is asked of",
    "event": "what happened",
    "job": "the job's id, a UUIDv7",
    "happening": "what happened to the schedule",
    "refusal": "a random id",
    "condition": "how the repository is",
    "promise": "whether a promise holds",
    "protection": "the source's id, 32 hexadecimal digits",
    "name": "the schedule's name",
    "lock": "a lock's name, 64 hexadecimal digits",
    "target": "the target's name",
    "op": "the file operation",
    "transfer": "128 random bits in hex, from the answer that opened the transfer",
}
VALUES = {
    "kind": [*kinds.COMMANDS],
    "event": [event.value for event in Event if event is not Event.CHECKPOINT],
    "happening": [*schedule_words.HAPPENINGS],
    "condition": [*repository_words.CONDITIONS],
    "promise": [*protection_words.PROMISES],
    "verb": ["claim", "renew", "release", "read", "beat"],
    "op": [*protocol.OPERATIONS],
}


class Channel(NamedTuple):
    """``stream``: the JetStream stream that keeps what is published there."""

    name: str
    address: str
    sentence: str
    carries: tuple[Struct | str, ...]
    action: Literal["send", "receive"] = "receive"
    answers: tuple[Struct | str, ...] = ()
    stream: str = ""


COMMANDS = tuple(kinds.COMMANDS.values())
FILE_REQUESTS = tuple(dict.fromkeys(operation.request for operation in protocol.OPERATIONS.values()))
FILE_ANSWERS = tuple(dict.fromkeys(operation.answer for operation in protocol.OPERATIONS.values()))


def _api_channel(verb: Verb) -> Channel:
    asks_source = verb.owner == "source"
    ask = NAMES.ask("{service}", verb.noun, verb.verb, "{caller}")
    address = ask if asks_source else NAMES.api(verb.noun, verb.verb, "{caller}")
    sentence = f"Answered by the {verb.owner}; the answer's `{verb.answer}` is filled."
    return Channel(f"{verb.noun}-{verb.verb}", address, sentence, (verb.request,), answers=(api_words.Reply,))


CHANNELS = [
    Channel(
        "command",
        NAMES.command("{kind}", "{submitter}"),
        "A job command, from any NATS client. A request is answered with JetStream's durable receipt.",
        COMMANDS,
        stream=NAMES.commands_stream,
    ),
    Channel(
        "bare-command",
        NAMES.all_commands[0].replace("*", "{kind}"),
        "The same where authentication is off.",
        COMMANDS,
        stream=NAMES.commands_stream,
    ),
    *map(_api_channel, VERBS),
    Channel(
        "work",
        NAMES.work("{service}"),
        "A call for a worker, with an empty body: it names no job, the core chooses when the worker claims.",
        ("Call",),
        "send",
        stream=NAMES.work_stream,
    ),
    Channel(
        "hold",
        NAMES.hold("{verb}", "{service}", "{replica}"),
        "A worker claims a job, renews its hold, gives it back, asks for a grant to browse, or says it lives.",
        (messages.HoldRequest,),
        answers=(messages.HoldAnswer,),
    ),
    Channel(
        "report",
        NAMES.report("{service}", "{replica}"),
        "What a worker says of its attempt.",
        (messages.Report,),
        stream=NAMES.reports_stream,
    ),
    Channel(
        "control",
        NAMES.control("{service}"),
        "What the core tells all replicas of a source service.",
        (messages.Control,),
        "send",
    ),
    Channel(
        "schedule",
        NAMES.schedule("{name}"),
        "A command with the header `Nats-Schedule`; only the core may publish here.",
        COMMANDS,
        "send",
        stream=NAMES.schedules_stream,
    ),
    Channel(
        "due",
        NAMES.due("{name}"),
        "The scheduled command, when its time has come.",
        COMMANDS,
        stream=NAMES.schedules_stream,
    ),
    Channel(
        "event",
        NAMES.event("{kind}", "{event}", "{job}"),
        "What happened to a job, as CloudEvents 1.0.",
        (messages.CloudEvent,),
        "send",
        stream=NAMES.events_stream,
    ),
    Channel(
        "refusal",
        NAMES.event("security", "refused", "{refusal}"),
        "A message that a service dropped, because it broke the rules of the bus.",
        (refusal_words.RefusalEvent,),
        "send",
        stream=NAMES.events_stream,
    ),
    Channel(
        "schedule-event",
        NAMES.event("schedule", "{happening}", "{refusal}"),
        "What happened to a schedule, as CloudEvents 1.0.",
        (schedule_words.ScheduleEvent,),
        "send",
        stream=NAMES.events_stream,
    ),
    Channel(
        "repository",
        NAMES.event("repository", "{condition}", "{target}"),
        "A check found damage in a target's repository, or no longer does, as CloudEvents 1.0.",
        (repository_words.RepositoryEvent,),
        "send",
        stream=NAMES.events_stream,
    ),
    Channel(
        "source",
        NAMES.event("source", "{promise}", "{protection}"),
        "The newest good backup, or drill, of a source is older than promised, or no longer is, as CloudEvents 1.0.",
        (protection_words.ProtectionEvent,),
        "send",
        stream=NAMES.events_stream,
    ),
    Channel(
        "lock",
        NAMES.event("lock", "removable", "{lock}"),
        "A worker may remove a lock of a job that nobody holds any more, and why.",
        (messages.LockEvent,),
        "send",
        stream=NAMES.events_stream,
    ),
    Channel(
        "loss",
        NAMES.event("server", "lost-state", "{refusal}"),
        "The NATS server came back with less than the audit remembers, and what was put back.",
        (audit_words.LossEvent,),
        "send",
        stream=NAMES.events_stream,
    ),
    Channel("progress", NAMES.progress("{job}"), "At most four a second.", (messages.Progress,), "send"),
    Channel(
        "files",
        NAMES.fs("{target}", "{op}", "{caller}"),
        "A file operation at a target: MessagePack behind its CRC-32 (4 bytes, big endian). It carries a grant.",
        FILE_REQUESTS,
        answers=FILE_ANSWERS,
    ),
    Channel(
        "data",
        NAMES.data("{target}", "{replica}", "{caller}", "{transfer}"),
        "The frames of one transfer.",
        (FRAME,),
        answers=(FRAME,),
    ),
]
"""Every subject, in the order a job meets them."""


def document() -> Document:
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Snappy",
            "version": __version__,
            "description": "Backup and restore over NATS. The prefix `snappy` of all subjects can be configured.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {channel.name: _channel(channel) for channel in CHANNELS} | {"inbox": _inbox()},
        "operations": {channel.name: _operation(channel) for channel in CHANNELS},
        "components": {"messages": _messages()},
    }


def _channel(channel: Channel) -> Document:
    stream = {"x-jetstream-stream": channel.stream} if channel.stream else {}
    return {
        "address": channel.address,
        "description": channel.sentence,
        "messages": _references(channel.carries),
        "parameters": {name: _parameter(name) for name in PARAMETERS if f"{{{name}}}" in channel.address},
        **stream,
    }


def _inbox() -> Document:
    answers = dict.fromkeys(answer for channel in CHANNELS for answer in channel.answers)
    return {
        "address": None,
        "description": "The caller's private inbox: an answer goes to the request's reply subject.",
        "messages": _references(answers),
    }


def _operation(channel: Channel) -> Document:
    operation: Document = {"action": channel.action, "channel": {"$ref": f"#/channels/{channel.name}"}}
    if channel.answers:
        operation["reply"] = {
            "address": {"location": "$message.header#/reply"},
            "channel": {"$ref": "#/channels/inbox"},
            "messages": [{"$ref": f"#/channels/inbox/messages/{_name(kind)}"} for kind in channel.answers],
        }
    return operation


def _parameter(name: str) -> Document:
    values = {"enum": VALUES[name]} if name in VALUES else {}
    return {"description": PARAMETERS[name], **values}


def _messages() -> Document:
    described = {
        "Call": {"name": "Call", "summary": "An empty body.", "payload": {"type": "string", "maxLength": 0}},
        FRAME: {
            "name": FRAME,
            "contentType": "application/octet-stream",
            "summary": "kind (1 byte), offset (8, big endian), CRC-32 of the rest (4, big endian), the rest.",
            "payload": {"type": "string", "format": "binary"},
        },
    }
    return {_name(struct): _message(struct) for struct in all_structs()} | described


def _message(struct: Struct) -> Document:
    packed = {"contentType": "application/octet-stream"} if struct in file_structs() else {}
    return {"name": _name(struct), "payload": {"$ref": f"./{file_name(struct)}"}, **packed}


def _references(kinds: Iterable[Struct | str]) -> Document:
    return {_name(kind): {"$ref": f"#/components/messages/{_name(kind)}"} for kind in kinds}


def _name(kind: Struct | str) -> str:
    return kind if isinstance(kind, str) else kind.__name__
