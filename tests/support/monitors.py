"""What nats-server tells of itself: who is connected, and whether all that it keeps is in step with its cluster."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections import Counter
from typing import Any

from tests.support.natsserver import NatsServer

MONITOR = re.compile(r"Starting http monitor on (127\.0\.0\.1:\d+)")
ASK_SECONDS = 2.0


def connected(server: NatsServer) -> Counter[str]:
    """How many connections each user has to it."""
    answer = _ask(server, "connz?auth=true&limit=4096")
    return Counter(each.get("authorized_user", "") for each in answer.get("connections") or [])


def newest(server: NatsServer, name: str) -> int:
    """The number of the newest connection that a client of that name has to it; 0 if there is none."""
    answer = _ask(server, "connz?limit=4096")
    return max((each["cid"] for each in answer.get("connections") or [] if each.get("name") == name), default=0)


def is_healthy(server: NatsServer) -> bool:
    """Whether it has caught up with the streams of which it keeps a copy."""
    try:
        return bool(_ask(server, "healthz").get("status") == "ok")
    except OSError:
        return False


def _ask(server: NatsServer, what: str) -> dict[str, Any]:
    found = [match[1] for line in server.lines if (match := MONITOR.search(line))]
    try:
        with urllib.request.urlopen(f"http://{found[-1]}/{what}", timeout=ASK_SECONDS) as answer:
            told: dict[str, Any] = json.load(answer)
            return told
    except urllib.error.HTTPError as error:
        error.close()
        return {}
