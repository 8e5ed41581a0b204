"""What a tree holds, as the file system says it and as ``restic ls --json`` says it, in the same words."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.restic import Restic

GO_BITS = {23: stat.S_ISUID, 22: stat.S_ISGID, 20: stat.S_ISVTX}
"""Where Go's ``io/fs.FileMode`` keeps what is not among the nine permission bits."""


TIME = re.compile(r"(?P<seconds>[^.]{19})(\.(?P<digits>\d{1,9}))?(?P<zone>Z|[+-]\d\d:\d\d)")


class Facts(NamedTuple):
    """``mtime`` is nanoseconds since the epoch, ``mode`` the twelve bits; only a file has a ``size``."""

    type: str
    mode: int
    size: int
    mtime: int
    owner: tuple[int, int]


Listing = dict[str, Facts]
"""By absolute path, in which each byte that is not UTF-8 is a replacement character, as JSON has it."""


def on_disk(top: Path) -> Listing:
    """``top`` and all below it."""
    return {path.decode(errors="replace"): _facts(os.lstat(path)) for path in _paths(os.fsencode(top))}


def in_snapshot(restic: Restic, snapshot: str, top: Path) -> Listing:
    """What restic lists of ``top`` and all below it. No path may come twice."""
    nodes = [line for line in restic.json("ls", snapshot) if line.get("struct_type") == "node"]
    found = [node for node in nodes if f"{node['path']}/".startswith(f"{top}/")]
    listing = {node["path"]: _told(node) for node in found}
    assert len(listing) == len(found)
    return listing


def differences(one: Listing, other: Listing) -> list[tuple[str, Facts | None, Facts | None]]:
    """Path and both facts of each entry that is not the same in both."""
    return [
        (path, one.get(path), other.get(path)) for path in sorted({*one, *other}) if one.get(path) != other.get(path)
    ]


def _paths(top: bytes) -> Iterator[bytes]:
    yield top
    for folder, folders, files in os.walk(top):
        yield from (os.path.join(folder, name) for name in (*folders, *files))


def _facts(found: os.stat_result) -> Facts:
    is_link = stat.S_ISLNK(found.st_mode)
    return Facts(
        type=_type(found.st_mode),
        mode=0o777 if is_link else stat.S_IMODE(found.st_mode),
        size=found.st_size if stat.S_ISREG(found.st_mode) else 0,
        mtime=found.st_mtime_ns,
        owner=(found.st_uid, found.st_gid),
    )


def _type(mode: int) -> str:
    names = {"-": "file", "d": "dir", "l": "symlink", "p": "fifo", "c": "chardev", "b": "dev", "s": "socket"}
    return names[stat.filemode(mode)[0]]


def _told(node: dict[str, Any]) -> Facts:
    mode = node["mode"] & 0o777
    mode |= sum(bit for place, bit in GO_BITS.items() if node["mode"] >> place & 1)
    return Facts(node["type"], mode, node.get("size", 0), _nanoseconds(node["mtime"]), (node["uid"], node["gid"]))


def _nanoseconds(text: str) -> int:
    """Of an RFC 3339 time with up to nine digits after the second; ``datetime`` keeps six."""
    parts = TIME.fullmatch(text)
    assert parts, text
    seconds = datetime.fromisoformat(parts["seconds"] + parts["zone"])
    return int(seconds.timestamp()) * 1_000_000_000 + int((parts["digits"] or "").ljust(9, "0"))
