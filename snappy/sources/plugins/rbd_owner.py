"""Who a snapshot or an image with one of our temporary names belongs to, and whether he still lives.

The name tells. Who lives watches the image. A watch outlives its process by half a minute; in its own machine a process
that is gone is known at once.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from pathlib import Path
from typing import Any

OWNER = r"\d+-[0-9a-f]{16}-\d+"


def owner(client: int) -> str:
    """The part of a name that says it is ours, while the cluster knows us by that number."""
    return f"{client}-{_machine()}-{os.getpid()}"


def is_alive(found: str, image: Any) -> bool:
    """Whether an owner lives, so named, of something that ``image`` is opened for. Raises Ceph's errors."""
    client, machine, process = found.split("-")
    if machine == _machine() and not Path(f"/proc/{process}").exists():
        return False
    return any(str(watcher["id"]) == client for watcher in image.watchers_list())


def _machine() -> str:
    """Names the machine since it was started, and in it those processes whose numbers we know."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    known = f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    return hashlib.sha256(known.encode()).hexdigest()[:16]


def ends_with_owner(name: str, begin: str) -> str:
    """The owner in a name that consists of ``begin`` and an owner; else an empty string."""
    rest = name.removeprefix(begin)
    return rest if rest != name and re.fullmatch(OWNER, rest) else ""
