"""Walks any fsspec filesystem. Objects have no owner, mode or links; what stands for them never changes by itself,
so that an unchanged bucket gives an unchanged tree.

An object's entity tag, where there is one, is folded into the inode number: an object that was overwritten with as
many bytes within the second that its time resolves is still seen as changed.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, BinaryIO, cast

from snappy.errors import SourceMissing, UnsafePath
from snappy.repository.entries import Entry, Node
from snappy.repository.paths import check_name, join
from snappy.sources.exclusion import Exclusion
from snappy.sources.made_up import folder_node

WHOLE = 16 << 20
"""Objects up to this many bytes are read with one request, which cannot tear."""
BLOCK = 8 << 20
TIMES = ("LastModified", "mtime", "modified", "last_modified", "updated", "created")
TAGS = ("ETag", "etag", "md5Hash", "content_md5")

Info = dict[str, Any]


class ObjectTree:
    """The entries below ``top`` on ``filesystem``, recorded under the snapshot path ``at``."""

    def __init__(self, filesystem: Any, top: str, at: bytes, exclusion: Exclusion) -> None:
        self._fs, self._top, self._at, self._exclusion = filesystem, top, at, exclusion

    def __iter__(self) -> Iterator[Entry]:
        pending = [self._entry(self._at, self._info())]
        while pending:
            entry = pending.pop()
            path = entry.path
            if entry.node.type == "dir":
                inside = self._inside(entry, self._top + _below(path, self._at))
                pending.extend(reversed(inside))
            yield entry

    def _info(self) -> Info:
        try:
            found: Info = self._fs.info(self._top)
        except Exception as error:  # filesystems raise what their libraries raise
            raise SourceMissing(f"{os.fsdecode(self._at)} cannot be read: {_sentence(error)}") from error
        return found

    def _inside(self, folder: Entry, place: str) -> list[Entry]:
        try:
            found = self._fs.ls(place, detail=True)
        except Exception as error:  # filesystems raise what their libraries raise
            folder.error = f"it cannot be listed: {_sentence(error)}"
            return []
        finally:
            self._fs.invalidate_cache(place)
        entries = [self._child(folder.path, info) for info in found if not _is_itself(info, place)]
        kept = (entry for entry in entries if not self._left_out(entry))
        return _without_twins(sorted(kept, key=lambda entry: (entry.node.name, entry.node.type)))

    def _child(self, folder: bytes, info: Info) -> Entry:
        name = os.fsencode(str(info["name"]).rstrip("/").rpartition("/")[2])
        try:
            return self._entry(join(folder, check_name(name)), info)
        except UnsafePath as error:
            return Entry(path=folder + b"/" + name, node=Node(name=name, type="irregular"), error=str(error))

    def _left_out(self, entry: Entry) -> bool:
        folder = entry.node.type == "dir"
        too_large = not folder and self._exclusion.by_size(entry.node.size)
        return too_large or self._exclusion.by_path(entry.path, directory=folder)

    def _entry(self, path: bytes, info: Info) -> Entry:
        name = os.path.basename(path)
        if info["type"] == "directory":
            return Entry(path=path, node=folder_node(name))
        if info["type"] != "file":
            return Entry(path=path, node=Node(name=name, type="irregular"), error="it is no plain file")
        modified = modified_ns(info)
        node = Node(
            name=name,
            type="file",
            mode=0o644,
            size=int(info.get("size") or 0),
            mtime_ns=modified,
            atime_ns=modified,
            ctime_ns=modified,
            inode=identity(info),
            links=1,
        )
        return Entry(path=path, node=node, open=self._opener(info), changed=self._watch(info))

    def _opener(self, info: Info) -> Callable[[], BinaryIO]:
        return lambda: self._open(info)

    def _open(self, info: Info) -> BinaryIO:
        size = int(info.get("size") or 0)
        try:
            if 0 < size <= WHOLE:
                return io.BytesIO(self._fs.cat_file(info["name"], start=0, end=size))
            opened = self._fs.open(info["name"], "rb", block_size=BLOCK, cache_type="readahead")
        except OSError:
            raise
        except Exception as error:  # filesystems raise what their libraries raise
            raise OSError(0, _sentence(error)) from error
        return cast(BinaryIO, opened)

    def _watch(self, info: Info) -> Callable[[], str]:
        return lambda: self._what_changed(info)

    def _what_changed(self, info: Info) -> str:
        if int(info.get("size") or 0) <= WHOLE:
            return ""
        try:
            now = self._fs.info(info["name"])
        except Exception:  # filesystems raise what their libraries raise
            return "it vanished while it was read"
        same = (now.get("size"), identity(now)) == (info.get("size"), identity(info))
        return "" if same else "it changed while it was read"


def modified_ns(info: Info) -> int:
    """When the object was last written, in nanoseconds since the epoch; 0 when the filesystem does not say."""
    value = next((info[key] for key in TIMES if info.get(key)), None)
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        since = aware - datetime(1970, 1, 1, tzinfo=UTC)
        return (since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000
    return int(value * 10**9) if isinstance(value, int | float) else 0


def _parsed(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def identity(info: Info) -> int:
    """64 bits that change when the object's entity tag does; 0 without one."""
    tag = next((str(info[key]) for key in TAGS if info.get(key)), "")
    return int.from_bytes(hashlib.sha256(tag.encode()).digest()[:8], "big") if tag else 0


def _below(path: bytes, top: bytes) -> str:
    return os.fsdecode(path[len(top) :])


def _is_itself(info: Info, place: str) -> bool:
    """Some stores list a marker object that stands for the directory."""
    return str(info["name"]).strip("/") == place.strip("/")


def _without_twins(entries: list[Entry]) -> list[Entry]:
    """An object may have the name of a directory beside it; a snapshot can hold only one: the directory, which sorts
    first."""
    for former, entry in pairwise(entries):
        if former.node.name == entry.node.name:
            entry.error = "a directory of the same name lies beside it"
    return entries


def _sentence(error: Exception) -> str:
    return str(error) or type(error).__name__
