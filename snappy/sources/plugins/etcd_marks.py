"""What keeps restores into one etcd cluster apart: while one is at work, ``snappy-restore/<service>/<lease>`` says
below which prefix, and its lease lives.

Each change is one transaction that asks for the mark, and writes it anew. So a restore that was taken for dead changes
nothing more; and what one has put that died are the keys that were last written from when its mark was made to when it
was last written: the next restore of its service removes them. What somebody wrote later stays.
"""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from snappy import log
from snappy.errors import SourceDenied, SourceUnavailable
from snappy.repository.paths import shown
from snappy.sources.plugins.etcd_cluster import Member, in_base64, span

OURS = b"snappy-restore/"
LEASE_SECONDS = 15
LOOK_SECONDS = 0.5
PAGE = 1000
BATCH_KEYS = 100
"""A cluster takes 128 changes at a time, unless it is told otherwise."""
AT_WORK = "wait until it has ended; one that was killed is known to be dead within a quarter of a minute"

Operation = dict[str, Any]

_log = log.get(__name__)


class _Found(NamedTuple):
    """A key, with the revisions at which it was made and last written."""

    name: bytes
    value: bytes
    made: int
    written: int


class Mark:
    """Of one restore, of keys that will begin with ``prefix``."""

    def __init__(self, service: str, prefix: bytes) -> None:
        self._whose, self._prefix = OURS + f"{service}/".encode(), prefix
        self._name = self._lease = b""
        self._written, self._renewed = 0, 0.0

    def tidy(self, member: Member) -> None:
        """Remove what restores of this service left that are no more."""
        for left in _found(member, *span(self._whose)):
            if not _is_alive(member, left.name):
                _undo(member, left)

    def others(self, member: Member) -> list[bytes]:
        """The marks of restores at work whose prefix is part of this one, or the other way round; those made earlier,
        once this one is made."""
        return [
            one.name
            for one in _found(member, *span(OURS))
            if (one.value.startswith(self._prefix) or self._prefix.startswith(one.value))
            and (not self._name or (one.name != self._name and one.made < self._written))
            and _is_alive(member, one.name)
        ]

    def make(self, member: Member, check: Callable[[], None]) -> None:
        """Waits for those that have died, unless ``check`` raises. Raises :class:`SourceUnavailable` where another
        restore is at work."""
        end = time.monotonic() + LEASE_SECONDS + 1
        while self.others(member):
            check()
            if time.monotonic() > end:
                raise SourceUnavailable("another restore puts keys there", hint=AT_WORK)
            time.sleep(LOOK_SECONDS)
        self.tidy(member)
        self._lease, self._renewed = str(member.ask("lease/grant", TTL=str(LEASE_SECONDS))["ID"]).encode(), _now()
        self._name = self._whose + self._lease
        self.change(member, [])
        if self.others(member):
            self.remove(member)
            raise SourceUnavailable("another restore puts keys there", hint=AT_WORK)

    def change(self, member: Member, operations: list[Operation]) -> None:
        """In one transaction. Raises :class:`SourceUnavailable` where somebody has removed the mark."""
        if _now() - self._renewed > LEASE_SECONDS / 3:
            self._renewed = _now()
            member.ask("lease/keepalive", ID=self._lease.decode())
        again = _put(self._name, self._prefix)
        self._written = _changed(member, [(self._name, self._written)], [*operations, again])
        if not self._written:
            raise SourceUnavailable("another restore took this one for dead, and removed its keys", hint=AT_WORK)

    def empty(self, member: Member) -> None:
        """Remove all keys that begin so."""
        self.change(member, [_removal(*each) for each in around(self._prefix)])

    def remove(self, member: Member) -> None:
        """All is there, or nothing ever was. Raises as :meth:`change`."""
        self.change(member, [])
        _changed(member, [(self._name, self._written)], [_removal(self._name, self._name + b"\0")])
        self._name = b""

    def give_up(self, member: Member) -> None:
        """With what was put."""
        for mine in _found(member, self._name, self._name + b"\0") if self._name else ():
            _undo(member, mine)


def around(prefix: bytes) -> list[tuple[bytes, bytes]]:
    """The spans of all keys that begin so, but for marks."""
    begin, end = span(prefix)
    if not prefix or OURS.startswith(prefix):
        return [(begin, OURS), (span(OURS)[1], end)]
    return [(begin, end)]


def _now() -> float:
    return time.monotonic()


def _is_alive(member: Member, mark: bytes) -> bool:
    """Its name ends with its lease."""
    lease = mark.rpartition(b"/")[2]
    return lease.isdigit() and int(member.ask("lease/timetolive", ID=lease.decode()).get("TTL", "0")) > 0


def _undo(member: Member, mark: _Found) -> None:
    """First let whoever set it notice, if that was not dead. Who may not remove keys there has put none."""
    taken = _changed(member, [(mark.name, mark.written)], [_put(mark.name, mark.value)])
    if not taken:
        return
    try:
        for begin, end in around(mark.value):
            found = _found(member, begin, end, keys_only=True)
            put = ((key.name, key.written) for key in found if mark.made <= key.written <= mark.written)
            while known := list(islice(put, BATCH_KEYS)):
                _changed(member, known, [_removal(name, name + b"\0") for name, _ in known])
    except SourceDenied as error:
        _log.warning("keys of an unfinished restore may not be removed", mark=shown(mark.name), reason=error.message)
    _changed(member, [(mark.name, taken)], [_removal(mark.name, mark.name + b"\0")])
    _log.info("removed what an unfinished restore left", mark=shown(mark.name))


def _found(member: Member, begin: bytes, end: bytes, *, keys_only: bool = False) -> Iterator[_Found]:
    """What lies there, in pages."""
    last = in_base64(end)
    while True:
        answer = member.ask("kv/range", key=in_base64(begin), range_end=last, limit=str(PAGE), keys_only=keys_only)
        for one in answer.get("kvs", []):
            begin = b64decode(one["key"]) + b"\0"
            yield _Found(
                begin[:-1], b64decode(one.get("value", "")), int(one["create_revision"]), int(one["mod_revision"])
            )
        if not answer.get("more"):
            return


def _changed(member: Member, known: list[tuple[bytes, int]], operations: list[Operation]) -> int:
    """The revision of the transaction; 0 if it was not done, for one of these keys was written since the revision that
    is ``known`` (0: it was not there)."""
    compared = [
        {"key": in_base64(name), "target": "MOD", "result": "EQUAL", "mod_revision": str(revision)}
        for name, revision in known
    ]
    answer = member.ask("kv/txn", compare=compared, success=operations)
    return int(answer["header"]["revision"]) if answer.get("succeeded") else 0


def _put(key: bytes, value: bytes) -> Operation:
    return {"request_put": {"key": in_base64(key), "value": in_base64(value)}}


def _removal(begin: bytes, end: bytes) -> Operation:
    return {"request_delete_range": {"key": in_base64(begin), "range_end": in_base64(end)}}
