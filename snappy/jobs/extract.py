"""An export of the audit log: lines that anyone can check without the log.

An entry's line is the log's own (see :mod:`snappy.jobs.segments`) with the hash before it in front, so that each one
proves itself; where a segment begins, its header stands as it is::

    {"v":1,"segment":2,"first":1001,"previous":"<hash of entry 1000>"}
    {"previous":"<hash of the header>","i":1001,"d":{...},"h":"<hash>"}

Of entries that follow each other the chain shows that nothing was put between, changed or left out. An export with a
filter leaves entries out; what it holds is as the log has it all the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from snappy.decoding import from_json
from snappy.errors import Corrupt
from snappy.jobs.audit_words import AuditExtract
from snappy.jobs.segments import Header, Segment, SegmentStorage, chain, decode

LOOKED_AT = 50_000
"""So many entries are looked at for one part, so that a filter that matches little still answers soon."""
_FRONT = b'{"previous":"%s",'
_FRONT_BYTES = len(_FRONT) - 2 + 64
_HASH_MARK = b',"h":"'


class Checked(NamedTuple):
    """What an export holds: how many entries, the number of the newest and its hash, and whether none is left out."""

    entries: int
    newest: int
    head: str
    whole: bool


class _Found(NamedTuple):
    """An entry; ``lines`` is its own, after its segment's header if it is the first there."""

    number: int
    lines: list[bytes]
    document: Mapping[str, Any]


# ---- writing ------------------------------------------------------------------------------------------------------


def part(
    storage: SegmentStorage, first: int, matches: Callable[[Mapping[str, Any]], bool], *, room: int
) -> AuditExtract:
    """The entries from ``first`` on that match, as lines of ``room`` bytes at most together (but one at least)."""
    lines: list[str] = []
    for found in _from(storage, first, storage.position.following):
        if found.number - first >= LOOKED_AT:
            return AuditExtract(lines=lines, following=found.number)
        if matches(found.document):
            texts = [line.decode() for line in found.lines]
            room -= len(msgspec.json.encode(texts))  # each quote in them takes two bytes
            if room < 0 and lines:
                return AuditExtract(lines=lines, following=found.number)
            lines += texts
    return AuditExtract(lines=lines)


def _from(storage: SegmentStorage, first: int, end: int) -> Iterator[_Found]:
    for place, segment in enumerate(list(storage.segments)):
        followers = storage.segments[place + 1 : place + 2]
        if not followers or followers[0].first > first:
            yield from (found for found in _of(segment) if first <= found.number < end)


def _of(segment: Segment) -> Iterator[_Found]:
    with segment.path.open("rb") as file:
        text = file.readline()
        head, before = hashlib.sha256(text).hexdigest(), [text.rstrip(b"\n")]
        for text in file:
            if not text.endswith(b"\n"):
                return
            line = decode(text, segment.path)
            yield _Found(line.i, [*before, _FRONT % head.encode() + text[1:-1]], from_json(line.d))
            head, before = line.h, []


# ---- checking -----------------------------------------------------------------------------------------------------


class _Stand(NamedTuple):
    """The newest entry, and the hash that the next line must name: of an entry, or of a header."""

    newest: int = 0
    head: str = ""
    link: str = ""
    entries: int = 0
    whole: bool = True


def check(path: Path) -> Checked:
    """Check every line of an export. Raises Corrupt, and names the first that does not fit."""
    with path.open("rb") as file:
        stand = _check(line for line in file if line.strip())
    return Checked(stand.entries, stand.newest, stand.head, stand.whole)


def _check(lines: Iterable[bytes]) -> _Stand:
    stand = _Stand()
    for number, line in enumerate(lines, 1):
        text = line.rstrip(b"\n")
        try:
            is_entry = text.startswith(_FRONT[:12])
            stand = _after_entry(text, stand) if is_entry else _after_header(text, stand)
        except (ValueError, msgspec.DecodeError) as error:
            raise Corrupt(f"line {number} of the export does not fit: {error}") from error
    return stand


def _after_entry(text: bytes, stand: _Stand) -> _Stand:
    front, start = text[:_FRONT_BYTES], b"{" + text[_FRONT_BYTES:]
    previous = front[len(_FRONT) - 4 : -2].decode()
    body, _, _ = start.rpartition(_HASH_MARK)
    entry = decode(start, Path("the export"))
    if front != _FRONT % previous.encode() or entry.h != chain(previous, body):
        raise ValueError(f"entry {entry.i} was changed")
    follows = entry.i == stand.newest + 1
    if entry.i <= stand.newest or (follows and stand.link and previous != stand.link):
        raise ValueError(f"entry {entry.i} does not follow entry {stand.newest}")
    return _Stand(entry.i, entry.h, entry.h, stand.entries + 1, stand.whole and follows)


def _after_header(text: bytes, stand: _Stand) -> _Stand:
    header = from_json(text, Header)
    if header.first == stand.newest + 1 and stand.link and header.previous != stand.link:
        raise ValueError(f"segment {header.segment} does not follow entry {stand.newest}")
    if header.first <= stand.newest:
        raise ValueError(f"segment {header.segment} is out of its order")
    newest, link = header.first - 1, hashlib.sha256(text + b"\n").hexdigest()
    return stand._replace(newest=newest, link=link, whole=stand.whole and newest == stand.newest)
