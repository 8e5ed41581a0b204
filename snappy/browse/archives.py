"""A directory of a snapshot as a tar or zip archive, written as it is read."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Container, Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import IO, Any

from snappy import log
from snappy.browse import words
from snappy.generated import Generated
from snappy.repository.entries import Node
from snappy.repository.format import MIB
from snappy.repository.paths import shown
from snappy.repository.stored_file import StoredFile
from snappy.repository.view import View

_TYPES = {
    "file": tarfile.REGTYPE,
    "dir": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "dev": tarfile.BLKTYPE,
    "chardev": tarfile.CHRTYPE,
    "fifo": tarfile.FIFOTYPE,
}
_NANOS = 1_000_000_000
_FIRST_YEAR, _LAST_YEAR = 1980, 2107
"""What a zip archive can date."""
_GROWTH = 1.05
"""What zlib may make of bytes that do not compress, generously."""
_LOG = log.get(__name__)

FETCHED_BYTES = 8 * MIB
FETCHED_ENTRIES = 1000
"""What is fetched together."""

Entry = tuple[bytes, Node]
Entries = Iterable[Entry]
"""Paths and what is there, directories before what is in them."""


class _Out(io.RawIOBase):
    """What a tar is written to; it need not know where it is. tarfile's own way to write to a pipe, ``w|``, copies what
    it holds back with every write."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out

    def write(self, data: Any) -> int:
        return self._out.write(data)

    def tell(self) -> int:
        return 0


def write_tar(view: View, entries: Entries, out: IO[bytes]) -> None:
    """In the pax format: times to the nanosecond, extended attributes, names of any bytes, hard links. Sockets are left
    out, which is logged. Raises Damaged and StorageError, and OSError of ``out``."""
    linked: dict[tuple[int, int], str] = {}
    with tarfile.TarFile(fileobj=_Out(out), mode="w", format=tarfile.PAX_FORMAT, copybufsize=MIB) as archive:
        for path, node, stored in _contents(view, entries, _TYPES):
            entry = _tar_entry(path, node, linked)
            if stored and entry.type == tarfile.REGTYPE:
                entry.size = stored.size
                with _reader(stored) as content:
                    archive.addfile(entry, content)
            else:
                archive.addfile(entry)


def write_zip(view: View, entries: Entries, out: IO[bytes]) -> None:
    """Files, directories and links; what else there is is left out, which is logged. A name that is no UTF-8 has its
    bytes as ``\\xNN``. Raises as :func:`write_tar`."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, node, stored in _contents(view, entries, ("file", "dir", "symlink")):
            entry = _zip_entry(path, node)
            if stored:
                large = stored.size * _GROWTH > zipfile.ZIP64_LIMIT
                with archive.open(entry, "w", force_zip64=large) as file, closing(stored.stream()) as pieces:
                    file.writelines(pieces)
            else:
                archive.writestr(entry, node.link_target)


def _contents(view: View, entries: Entries, types: Container[str]) -> Iterator[tuple[bytes, Node, StoredFile | None]]:
    """The entries of these types, with the content of files; what is small is fetched together."""
    group: list[Entry] = []
    size = 0
    for path, node in entries:
        if node.type not in types:
            _LOG.warning("left out: such an archive holds no such object", path=shown(path), type=node.type)
            continue
        if group and (size + node.size > FETCHED_BYTES or len(group) >= FETCHED_ENTRIES):
            yield from _fetched(view, group)
            group, size = [], 0
        group.append((path, node))
        size += node.size
    yield from _fetched(view, group)


def _fetched(view: View, group: list[Entry]) -> Iterator[tuple[bytes, Node, StoredFile | None]]:
    files = [node for _, node in group if node.type == "file"]
    large = len(files) == 1
    contents = iter([view.file(files[0])] if large else view.files(files))
    for path, node in group:
        yield path, node, next(contents) if node.type == "file" else None


def _reader(stored: StoredFile) -> IO[bytes]:
    if stored.size <= FETCHED_BYTES:
        return io.BytesIO(stored.read(0, stored.size))
    return io.BufferedReader(Generated(stored.stream()), MIB)


def _tar_entry(path: bytes, node: Node, linked: dict[tuple[int, int], str]) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(words.text(path.lstrip(b"/")))
    entry.type, entry.mode = _TYPES[node.type], node.mode
    entry.uid, entry.gid, entry.uname, entry.gname = node.uid, node.gid, node.user, node.group
    seconds, nanos = divmod(node.mtime_ns, _NANOS)
    entry.mtime = seconds
    entry.pax_headers = {f"SCHILY.xattr.{words.text(name)}": words.text(value) for name, value in node.xattrs.items()}
    if nanos:
        entry.pax_headers["mtime"] = f"{node.mtime_ns / _NANOS:.9f}" if seconds < 0 else f"{seconds}.{nanos:09d}"
    if node.type == "symlink":
        entry.linkname = words.text(node.link_target)
    elif node.type in ("dev", "chardev"):
        entry.devmajor, entry.devminor = os.major(node.device), os.minor(node.device)
    elif node.type == "file" and node.links > 1:
        first = linked.setdefault((node.device_id, node.inode), entry.name)
        if first != entry.name:
            entry.type, entry.linkname = tarfile.LNKTYPE, first
    return entry


def _zip_entry(path: bytes, node: Node) -> zipfile.ZipInfo:
    when = datetime.fromtimestamp(node.mtime_ns // _NANOS, UTC)
    year = max(_FIRST_YEAR, min(when.year, _LAST_YEAR))
    name = shown(path.lstrip(b"/")) + ("/" if node.type == "dir" else "")
    entry = zipfile.ZipInfo(name, (year, when.month, when.day, when.hour, when.minute, when.second))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = 3  # Unix, so that modes count
    entry.external_attr = words.st_mode(node) << 16 | (0x10 if node.type == "dir" else 0)
    return entry
