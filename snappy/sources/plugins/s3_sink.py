"""Restores objects to a bucket, each in one step with its headers, metadata and tags."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl

from snappy.errors import SourceError
from snappy.repository.entries import Node
from snappy.repository.paths import split
from snappy.sources.plugins.s3_bucket import DELETED, Bucket, explained, request

HISTORY, OBJECTS = b"history", b"objects"
"""What was sorts before what is: it is restored first."""
TOP = 4
"""Names of a path before its key: s3, the server, the bucket, and one of these."""
WRITERS = 4
WHOLE = 16 << 20
"""Objects up to this many bytes are written with one request; that many may be in memory for each writer."""
PARTS = 9000
"""Of one object; S3 has at most 10,000."""


class S3Sink:
    """See :class:`snappy.repository.entries.StreamSink`. Small objects are written beside each other, but for versions
    of one object."""

    def __init__(self, bucket: Bucket, prefix: str, *, overwrite: bool, versions: bool) -> None:
        self._bucket, self._prefix = bucket, prefix.encode()
        self._overwrite, self._versions = overwrite, versions
        self._writers = ThreadPoolExecutor(WRITERS, "s3")
        self._under_way: dict[str, Future[None]] = {}
        self._ours: set[str] = set()
        """Keys of which this restore has written versions."""

    def receive(self, path: bytes, node: Node, content: Iterator[bytes]) -> list[str]:
        """Raises :class:`SourceError` for an object of other content in its place, unless it may be overwritten."""
        is_former, names = _placed(path)
        if is_former and not self._versions:
            return []
        key = os.fsdecode(b"/".join([self._prefix, *names] if self._prefix else names))
        self._await(key)
        if is_former:
            self._check_kept()
            self._ours.add(key)
        if DELETED in node.xattrs:
            self._bucket.call("delete_object", Key=key)
        elif node.size <= WHOLE:
            self._begin(key, b"".join(content), request(node.xattrs))
        else:
            self._write_large(key, node, content)
        return []

    def _check_kept(self) -> None:
        """What stands in the place of a former version may be another's object, or what a restore that was lost wrote:
        nothing is lost where the bucket keeps it as a version."""
        if not self._ours and not self._overwrite:
            self._bucket.require_versions()

    def _await(self, key: str) -> None:
        """Until nobody writes that object, and there is a writer to spare."""
        while key in self._under_way or len(self._under_way) >= WRITERS:
            first = key if key in self._under_way else next(iter(self._under_way))
            self._under_way.pop(first).result()

    def _begin(self, key: str, data: bytes, asked: dict[str, Any]) -> None:
        self._under_way[key] = self._writers.submit(self._write, key, data, asked)

    def _write(self, key: str, data: bytes, asked: dict[str, Any]) -> None:
        standing = self._standing(key)
        if standing is not None and (standing != len(data) or self._read(key) != data):
            raise _in_the_way(self._bucket, key)
        self._bucket.call("put_object", Key=key, Body=data, **asked)

    def _write_large(self, key: str, node: Node, content: Iterator[bytes]) -> None:
        """In parts, of which nothing is to be seen before all are there."""
        standing, at = self._standing(key), 0
        place = f"{self._bucket.name}/{key}"
        with explained(self._bucket.name):
            file = self._bucket.fs.open(place, "wb", block_size=max(WHOLE, node.size // PARTS), **request(node.xattrs))
        try:
            for piece in content:
                if standing is not None and (standing != node.size or self._read(key, at, len(piece)) != piece):
                    raise _in_the_way(self._bucket, key)
                at += len(piece)
                with explained(self._bucket.name):
                    file.write(piece)
        except BaseException:
            file.discard()
            file.closed = True
            raise
        with explained(self._bucket.name):
            file.close()
        self._tag(key, node)

    def _tag(self, key: str, node: Node) -> None:
        """Once more: Ceph's radosgw forgets the tags of what is written in parts."""
        if tags := parse_qsl(request(node.xattrs).get("Tagging", ""), keep_blank_values=True):
            self._bucket.call("put_object_tagging", Key=key, Tagging={"TagSet": [_tag(*each) for each in tags]})

    def _standing(self, key: str) -> int | None:
        """Bytes of the object that must not be lost, if there is one."""
        if self._overwrite or key in self._ours:
            return None
        (found,) = self._bucket.about([(key, "")], tags=False)
        if isinstance(found, FileNotFoundError):
            return None
        if isinstance(found, Exception):
            with explained(self._bucket.name):
                raise found
        return int(found[0]["ContentLength"])

    def _read(self, key: str, at: int = 0, size: int = 0) -> bytes:
        with explained(self._bucket.name):
            return self._bucket.read(key, **({"Range": f"bytes={at}-{at + size - 1}"} if size else {}))

    def finish(self) -> list[str]:
        for one in self._under_way.values():
            one.result()
        return []

    def close(self) -> None:
        self._writers.shutdown(cancel_futures=True)


def _placed(path: bytes) -> tuple[bool, list[bytes]]:
    """Whether it is a former version, and the parts of its key. What no backup of this plug-in holds keeps its path."""
    names = split(path)
    if len(names) <= TOP or names[0] != b"s3" or names[TOP - 1] not in (HISTORY, OBJECTS):
        return False, names
    is_former = names[TOP - 1] == HISTORY
    return is_former, names[TOP:-1] if is_former else names[TOP:]


def _tag(name: str, value: str) -> dict[str, str]:
    return {"Key": name, "Value": value}


def _in_the_way(bucket: Bucket, key: str) -> SourceError:
    return SourceError(
        f"the bucket {bucket.name} has another object {key}",
        hint="restore with another `prefix`, or with `overwrite: true`",
    )
