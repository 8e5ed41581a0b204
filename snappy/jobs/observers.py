"""What the core answers to observers: subscribe, subscription and unsubscribe.

A caller has one durable consumer of events, named after it; its account can pull and acknowledge there and nowhere
else. It shows no more than the caller may hear anyway, but waits for one who is away.
"""

from __future__ import annotations

import msgspec

from snappy.bus import streams
from snappy.bus.connection import Bus
from snappy.bus.subjects import token
from snappy.errors import InvalidCommand, StreamMismatch, SubscriptionNotFound
from snappy.jobs.answering import Handler
from snappy.jobs.api_words import Reply, SubscribeRequest, Subscription
from snappy.jobs.verbs import EVENTS_SUBSCRIBE, EVENTS_SUBSCRIPTION, EVENTS_UNSUBSCRIBE, Verb


class Observers:
    """All verbs are harmless when repeated."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def handlers(self) -> list[tuple[Verb, Handler]]:
        return [
            (EVENTS_SUBSCRIBE, self.subscribe),
            (EVENTS_SUBSCRIPTION, self.subscription),
            (EVENTS_UNSUBSCRIBE, self.unsubscribe),
        ]

    async def subscribe(self, caller: str, request: msgspec.Struct) -> Reply:
        """Who has a consumer goes on with it; for other events it must be given up first."""
        assert isinstance(request, SubscribeRequest)
        subject = self._bus.subjects.event(request.kind, request.event, request.job)
        try:
            made = await streams.ensure_observer(self._bus, token(caller), subject, only_new=request.start == "now")
        except StreamMismatch as error:
            raise InvalidCommand(
                f"{caller} is subscribed to other events",
                hint="`snappy events unsubscribe` first; a caller has one subscription",
            ) from error
        return Reply(subscription=Subscription(stream=made.stream, durable=made.name, filter=subject))

    async def subscription(self, caller: str, request: msgspec.Struct) -> Reply:
        """What the caller is subscribed to, and how much of it waits. Raises SubscriptionNotFound."""
        found = await streams.observer(self._bus, token(caller))
        if found is None:
            raise SubscriptionNotFound(f"{caller} is not subscribed to events")
        return Reply(
            subscription=Subscription(stream=found.stream, durable=found.name, filter=found.filter, unread=found.unread)
        )

    async def unsubscribe(self, caller: str, request: msgspec.Struct) -> Reply:
        """What was not read yet is never read; the answer names what is gone."""
        await streams.remove_observer(self._bus, token(caller))
        subjects = self._bus.subjects
        durable = subjects.observer_durable(caller)
        return Reply(subscription=Subscription(stream=subjects.events_stream, durable=durable, filter=""))
