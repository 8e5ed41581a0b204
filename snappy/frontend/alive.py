"""Which services are alive, and which of them is meant where none is named."""

from __future__ import annotations

import time

from snappy.errors import UsageError
from snappy.frontend.api import Client
from snappy.jobs.messages import ALIVE_SECONDS, Beat


def is_alive(beat: Beat) -> bool:
    """Whether a service was heard of lately."""
    return time.time() - beat.seen < ALIVE_SECONDS


async def only_source(client: Client) -> str:
    """The one source service that is alive. Raises UsageError where there are none or several."""
    alive = sorted({beat.service for beat in await client.services() if beat.role == "source" and is_alive(beat)})
    if len(alive) == 1:
        return alive[0]
    names = ", ".join(alive) or "none"
    raise UsageError("which source service should do this?", hint=f"name one with --source; alive are: {names}")
