"""Whether bytes stand anywhere in a process: its memory, its environment, its command line. Linux only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

BLOCK = 1 << 24
OVERLAP = 4096


def holds(pid: int, needle: bytes) -> bool:
    """Whether ``needle`` (at most ``OVERLAP`` bytes) is found in the process ``pid``."""
    assert len(needle) <= OVERLAP
    process = Path(f"/proc/{pid}")
    said = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
    return needle in said or any(needle in block for block in memory(pid))


def memory(pid: int) -> Iterator[bytes]:
    """All readable memory, in blocks that overlap. Raises PermissionError where the process may not be looked into."""
    regions = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) r.*?(\S*)$", Path(f"/proc/{pid}/maps").read_text(), re.MULTILINE)
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
        for start, end, name in regions:
            if name not in ("[vvar]", "[vvar_vclock]", "[vsyscall]"):
                yield from _region(file, int(start, 16), int(end, 16))


def _region(file: object, start: int, end: int) -> Iterator[bytes]:
    for offset in range(start, end, BLOCK):
        file.seek(offset)  # type: ignore[attr-defined]
        try:
            yield file.read(min(BLOCK + OVERLAP, end - offset))  # type: ignore[attr-defined]
        except OSError:  # the region went away, or is the kernel's own
            return
