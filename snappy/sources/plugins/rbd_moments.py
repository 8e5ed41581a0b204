"""Our snapshots of an RBD image: one that a backup reads, and the last one, from which the next knows what changed.

The name of one that is being read ends with who reads it. It loses that end when the backup has succeeded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from secrets import token_hex
from typing import Any, NamedTuple

from snappy import log
from snappy.repository.entries import Extent
from snappy.sources.plugins.rbd_cluster import module
from snappy.sources.plugins.rbd_owner import OWNER, is_alive, owner

ASKED_TOGETHER = 16 << 30
"""Bytes of an image; the cluster looks at each object of them, and nothing stops it."""

_log = log.get(__name__)


class OurSnapshot(NamedTuple):
    """``reader`` is empty for one that is kept."""

    name: str
    token: str
    reader: str


class Moments:
    """Of one ``image``, opened for writing; those of one ``service`` and ``chain``. Raises Ceph's errors."""

    def __init__(self, image: Any, service: str, chain: str, client: int) -> None:
        self._image, self._client = image, client
        self._begin = f"snappy-{service}-{chain}-"
        self._ours = re.compile(re.escape(self._begin) + rf"([0-9a-f]{{32}})(?:-reading-({OWNER}))?")

    def take(self) -> str:
        """The token of a new snapshot, which is being read."""
        token = token_hex(16)
        self._image.create_snap(self.reading(token))
        return token

    def reading(self, token: str) -> str:
        """The name of the snapshot while we read it."""
        return f"{self._begin}{token}-reading-{owner(self._client)}"

    def kept(self, token: str) -> str:
        """Its name afterwards."""
        return f"{self._begin}{token}"

    def keep(self, token: str) -> None:
        """The backup succeeded: the next one begins here, and what was kept before is not needed."""
        self._image.rename_snap(self.reading(token), self.kept(token))
        for one in self.ours():
            if not one.reader and one.token != token:
                self._remove(one)

    def drop(self, token: str) -> None:
        """The backup did not succeed."""
        for one in self.ours():
            if one.token == token:
                self._remove(one)

    def remove_left(self) -> None:
        """What dead processes were reading."""
        for one in self.ours():
            if one.reader and not is_alive(one.reader, self._image):
                self._remove(one)
                _log.info("removed the snapshot of a backup that died", snapshot=one.name)

    def has(self, token: str) -> bool:
        """Whether that snapshot is kept."""
        return any(one.token == token and not one.reader for one in self.ours())

    def ours(self) -> Iterator[OurSnapshot]:
        """All of our snapshots of it."""
        for found in list(self._image.list_snaps()):
            match = self._ours.fullmatch(found["name"])
            if match:
                yield OurSnapshot(found["name"], match[1], match[2] or "")

    def _remove(self, one: OurSnapshot) -> None:
        try:
            self._image.remove_snap(one.name)
        except module("rbd").ImageNotFound:
            _log.debug("another has removed the snapshot", snapshot=one.name)


def extents(image: Any, since: str | None, check: Callable[[], None]) -> list[Extent]:
    """What of the image, which is set to a snapshot, may be other than in the earlier snapshot ``since``; without one,
    all that is allocated, in the image or in what it is a clone of. The object map is not asked: it has been wrong.
    What ``check`` raises ends it."""
    found: list[Extent] = []
    size = image.size()
    for begin in range(0, size, ASKED_TOGETHER):
        check()
        length = min(ASKED_TOGETHER, size - begin)
        image.diff_iterate(begin, length, since, lambda start, length, _: found.append(Extent(start, length)))
    return found
