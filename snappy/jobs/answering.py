"""Answers one verb of the API: looks at the reply, reads the request, calls the handler, sends a :class:`Reply`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from nats.aio.msg import Msg

from snappy import log
from snappy.bus.connection import Bus
from snappy.errors import InternalError, InvalidCommand, SnappyError
from snappy.jobs.api_words import Reply
from snappy.jobs.kinds import read
from snappy.jobs.messages import ErrorInfo
from snappy.jobs.verbs import Verb

_log = log.get(__name__)

Handler = Callable[[str, msgspec.Struct], Awaitable[Reply]]
"""Takes the caller and the request. What it raises becomes the reply's error."""
Refuse = Callable[[Msg, str, str], Awaitable[None]]
"""Told of a message that is not answered: the message, its caller, the reason."""

FORGED_REPLY = "the reply is not in the caller's inbox"


def answerer(
    bus: Bus, verb: Verb, handler: Handler, *, private: bool, refuse: Refuse
) -> Callable[[Msg], Awaitable[None]]:
    """A callback for the messages of ``verb``. ``private``: each caller has an inbox of its own."""

    async def answer(message: Msg) -> None:
        caller = bus.subjects.parse_call(message.subject).caller
        if not bus.reply_allowed(message, caller, private):
            await refuse(message, caller, FORGED_REPLY)
            return
        await bus.respond(message, msgspec.json.encode(await _reply(verb, handler, caller, message.data)))

    return answer


async def _reply(verb: Verb, handler: Handler, caller: str, body: bytes) -> Reply:
    try:
        return await handler(caller, _request(verb, body))
    except SnappyError as error:
        return Reply(error=ErrorInfo.of(error))
    except Exception:
        _log.exception("a request failed", verb=verb.name, caller=caller)
        return Reply(error=ErrorInfo.of(InternalError()))


def _request(verb: Verb, body: bytes) -> msgspec.Struct:
    try:
        request: msgspec.Struct = read(body or b"{}", verb.request)
    except msgspec.DecodeError as error:
        raise InvalidCommand(str(error), hint=f"see schemas/ for the fields of {verb.noun}.{verb.verb}") from error
    return request
