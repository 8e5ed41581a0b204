"""The ``s3`` plug-in: the objects of a bucket with all that S3 knows of them, and the versions that they had.

An object is a file; its headers, metadata and tags are extended attributes. Below ``/s3/<server>/<bucket>`` lie
``objects/<key>``, and of versions ``history/<key>/<time>-<number>-<version>``.
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cached_property, partial, reduce
from itertools import groupby, islice
from typing import Annotated, Any, BinaryIO, ClassVar, TypeVar

import msgspec
from msgspec import Meta

from snappy.errors import UnsafePath
from snappy.repository.entries import Entry, Node, StreamSink
from snappy.repository.paths import ROOT, check_name, join, split
from snappy.sources.exclusion import Exclusion
from snappy.sources.made_up import folder_node, folders_above
from snappy.sources.object_tree import ObjectTree, identity, modified_ns
from snappy.sources.plugins.s3_bucket import (
    DELETED,
    PLUGIN,
    About,
    Answer,
    Bucket,
    S3Settings,
    Version,
    check_bucket,
    claim_of,
    has_changed,
    pinned,
)
from snappy.sources.plugins.s3_sink import HISTORY, OBJECTS, S3Sink
from snappy.sources.site import Site

TOGETHER = 64
"""Objects that are asked about at once."""
WHOLE = 16 << 20
"""Objects up to this many bytes are read with one request."""
BLOCK = 8 << 20
TRIES = 5
"""Of reading an object that is overwritten again and again."""


Item = TypeVar("Item")


class S3Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which objects."""

    bucket: Annotated[str, Meta(min_length=1, description="the bucket's name")]
    server: Annotated[str, Meta(description="which server, by its name in the service's settings")] = "default"
    prefix: Annotated[str, Meta(description="only objects in that folder, such as photos/2026")] = ""
    exclude: Annotated[tuple[str, ...], Meta(description="gitignore patterns; a leading / stands for the key's")] = ()
    tags: Annotated[bool, Meta(description="keep the tags, which costs a request for each object")] = True
    versions: Annotated[bool, Meta(description="former versions too, and when objects were deleted")] = False


class S3Restore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where objects are restored, each with its headers, metadata and tags. Nothing is deleted."""

    bucket: Annotated[str, Meta(min_length=1, description="the bucket, which is there")]
    server: Annotated[str, Meta(description="which server, by its name in the service's settings")] = "default"
    prefix: Annotated[str, Meta(description="a folder to put before all keys")] = ""
    overwrite: Annotated[bool, Meta(description="replace objects of other content; else one ends the restore")] = False
    versions: Annotated[
        bool, Meta(description="write former versions first, oldest first, as far as there are any")
    ] = False


class S3Source:
    """Each object as it was when it was read."""

    name: ClassVar[str] = PLUGIN
    Options: ClassVar[type[msgspec.Struct]] = S3Options
    RestoreOptions: ClassVar[type[msgspec.Struct]] = S3Restore
    Settings: ClassVar[type[msgspec.Struct]] = S3Settings

    def __init__(self, options: S3Options, site: Site) -> None:
        check_bucket(options.bucket, options.prefix)
        self._options, self._site = options, site
        site.settings(PLUGIN, S3Settings, options.server)
        self._top = _joined(ROOT, "s3", options.server, options.bucket)

    @cached_property
    def _bucket(self) -> Bucket:
        """Its client takes a while to load, and its secret may be what a program says."""
        return Bucket(self._site, self._options.server, self._options.bucket)

    def claims(self) -> list[str]:
        """The prefix, as ``s3+server://<server>/<bucket>[/<prefix>]``."""
        return [claim_of(self._options.server, self._options.bucket, self._options.prefix)]

    def snap(self) -> AbstractAsyncContextManager[None]:
        """Nothing is frozen. Raises :class:`snappy.errors.SourceMissing` and its like."""
        return self._snap()

    @asynccontextmanager
    async def _snap(self) -> AsyncIterator[None]:
        await asyncio.to_thread(lambda: self._bucket.require())
        yield

    def export(self, frozen: None) -> Iterator[Entry]:
        """What objects were, then what they are. Raises :class:`snappy.errors.SourceUnavailable` where the server is
        lost amid them."""
        for entry in self._entries():
            if entry.error:
                self._bucket.require()
            yield entry
        self._bucket.require()

    def _entries(self) -> Iterator[Entry]:
        yield from folders_above(join(self._top, b"x"))
        if self._options.versions:
            yield from self._history()
        objects = join(self._top, OBJECTS)
        place = _joined(objects, *filter(None, self._options.prefix.split("/")))
        exclusion = Exclusion(self._excluded(objects))
        if place != objects:
            yield from islice(folders_above(place), len(split(objects)) - 1, None)
        tree = ObjectTree(self._bucket.fs, self._place(), place, exclusion)
        for some in _batches(tree, TOGETHER):
            yield from self._told(some, len(objects) + 1)

    def _place(self) -> str:
        return "/".join(filter(None, (self._options.bucket, self._options.prefix)))

    def _excluded(self, objects: bytes) -> list[str]:
        """With keys as paths of the snapshot."""
        return [os.fsdecode(objects) + one if one.startswith("/") else one for one in self._options.exclude]

    def _told(self, entries: Sequence[Entry], cut: int) -> Sequence[Entry]:
        """Entries with what the server says of the objects; ``cut`` bytes of their paths are not their keys'."""
        files = [entry for entry in entries if entry.node.type == "file" and not entry.error]
        keys = [os.fsdecode(entry.path[cut:]) for entry in files]
        for entry, key, about in zip(files, keys, self._about([(key, "") for key in keys]), strict=True):
            if isinstance(about, Exception):
                entry.error = f"it cannot be read: {about}"
            else:
                entry.node = _node(entry.node.name, *about)
                entry.open, entry.changed = partial(self._open, entry, key, about[0]), None
        return entries

    def _about(self, objects: Sequence[tuple[str, str]]) -> list[About | Exception]:
        return self._bucket.about(objects, tags=self._options.tags)

    def _open(self, entry: Entry, key: str, head: Answer) -> BinaryIO:
        """The object, or the one that has taken its place meanwhile."""
        for _ in range(TRIES):
            try:
                return self._read(key, int(head["ContentLength"]), IfMatch=head["ETag"], **pinned(head))
            except OSError as error:
                if not has_changed(error):
                    raise
            (about,) = self._about([(key, "")])
            if isinstance(about, Exception):
                raise OSError(0, str(about)) from about
            head, _ = about
            entry.node = _node(entry.node.name, *about)
        raise OSError(0, "it changes faster than it can be read")

    def _read(self, key: str, size: int, **which: str) -> BinaryIO:
        if size > WHOLE:
            return io.BufferedReader(_Ranges(partial(self._bucket.read, key, **which), size), BLOCK)
        return io.BytesIO(self._bucket.read(key, **which))

    # ---- versions

    def _history(self) -> Iterator[Entry]:
        """In the order of paths, which is not that of keys."""
        top = join(self._top, HISTORY)
        known: set[bytes] = set(_above(top))
        for some in _batches(self._versions(top), TOGETHER):
            for entry in self._told_versions(some):
                for folder in _above(entry.path):
                    if folder not in known:
                        known.add(folder)
                        yield Entry(path=folder, node=folder_node(os.path.basename(folder)))
                yield entry

    def _versions(self, top: bytes) -> list[tuple[bytes, Version]]:
        """With their paths, in order. Names that no file can have are told of where the present objects are."""
        exclusion = Exclusion(self._excluded(top))
        found: list[tuple[bytes, Version]] = []
        for version in self._bucket.former_versions(f"{self._options.prefix}/" if self._options.prefix else ""):
            try:
                folder = reduce(join, (check_name(os.fsencode(name)) for name in version.key.split("/")), top)
            except UnsafePath:
                continue
            if not exclusion.by_path(folder, directory=False):
                found.append((folder, version))
        found.reverse()  # the oldest first, also of those of one second
        found.sort(key=lambda one: (split(one[0]), _second(one[1]), one[1].deleted))
        same_second = groupby(found, key=lambda one: (one[0], _second(one[1])))
        named = [
            (join(folder, os.fsencode(f"{second}-{number:04}-{version.id}")), version)
            for (folder, second), some in same_second
            for number, (_, version) in enumerate(some)
        ]
        return sorted(named, key=lambda one: split(one[0]))

    def _told_versions(self, found: Sequence[tuple[bytes, Version]]) -> Iterator[Entry]:
        there = [version for _, version in found if not version.deleted]
        answers = iter(self._about([(version.key, version.id) for version in there]))
        for path, version in found:
            yield _deletion(path, version) if version.deleted else self._version(path, version, next(answers))

    def _version(self, path: bytes, version: Version, about: About | Exception) -> Entry:
        name = os.path.basename(path)
        if isinstance(about, Exception):
            return Entry(path=path, node=Node(name=name, type="file"), error=f"it cannot be read: {about}")
        node = _node(name, *about)
        return Entry(path=path, node=node, open=partial(self._read, version.key, node.size, VersionId=version.id))

    # ---- restore

    @classmethod
    def restore_claims(cls, options: S3Restore, site: Site) -> list[str]:
        """The bucket, or the prefix in it."""
        check_bucket(options.bucket, options.prefix)
        return [claim_of(options.server, options.bucket, options.prefix)]

    @classmethod
    def import_(cls, options: S3Restore, claims: Sequence[str], site: Site) -> StreamSink:
        """Open the bucket. Raises :class:`snappy.errors.SourceMissing` and its like."""
        bucket = Bucket(site, options.server, options.bucket)
        bucket.require()
        return S3Sink(bucket, options.prefix, overwrite=options.overwrite, versions=options.versions)


class _Ranges(io.RawIOBase):
    """The object's bytes, with a request for each piece."""

    def __init__(self, read: Callable[..., bytes], size: int) -> None:
        self._read_range, self._size, self._at = read, size, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        if end == self._at:
            return 0
        data = self._read_range(Range=f"bytes={self._at}-{end - 1}")
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _second(version: Version) -> str:
    """When it was written, as servers say it."""
    when: str = version.info["LastModified"].strftime("%Y%m%dT%H%M%SZ")
    return when


def _deletion(path: bytes, version: Version) -> Entry:
    """An empty file that says when the object was deleted."""
    node = _node(os.path.basename(path), {**version.info, "ContentLength": 0}, {DELETED: b"1"})
    return Entry(path=path, node=node, open=io.BytesIO)


def _node(name: bytes, head: Answer, xattrs: dict[bytes, bytes]) -> Node:
    modified = modified_ns(head)
    return Node(
        name=name,
        type="file",
        mode=0o644,
        size=int(head["ContentLength"]),
        mtime_ns=modified,
        atime_ns=modified,
        ctime_ns=modified,
        inode=identity(head),
        links=1,
        xattrs=xattrs,
    )


def _joined(path: bytes, *names: str) -> bytes:
    return reduce(join, map(os.fsencode, names), path)


def _above(path: bytes) -> list[bytes]:
    names = split(path)[:-1]
    return [reduce(join, names[:count], ROOT) for count in range(1, len(names) + 1)]


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
