"""The ``files`` plug-in: local paths and the URLs of fsspec filesystems, as a source and as a place to restore to."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from snappy.decoding import from_msgpack
from snappy.errors import BadOptions, SourceMissing
from snappy.repository import makers
from snappy.repository.entries import Entry, Exported, Passed, Recipe, Siblings, Sink
from snappy.sources import frozen_places
from snappy.sources.exclusion import CACHE_SIGNATURE, CACHE_TAG, Exclusion, Tag
from snappy.sources.local_metadata import Owner, by_name, by_number
from snappy.sources.local_sink import LocalSink, Overwrite
from snappy.sources.local_tree import LocalCensus, LocalTree, Moved, plan
from snappy.sources.made_up import folders_above
from snappy.sources.object_sink import ObjectSink
from snappy.sources.object_tree import ObjectTree
from snappy.sources.places import Local, Place, Remote, claimed_place, parse_place
from snappy.sources.site import NOWHERE, Site

Lines = tuple[str, ...]


def _about(text: str) -> Any:
    return Meta(description=text)


class FilesOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a backup of files takes and leaves."""

    paths: Annotated[Lines, Meta(min_length=1, description="absolute local paths, or URLs such as s3://bucket/prefix")]
    exclude: Annotated[Lines, _about("gitignore patterns; without a leading / they match at any depth")] = ()
    iexclude: Annotated[Lines, _about("the same, ignoring case")] = ()
    exclude_if_present: Annotated[
        Lines, _about("NAME or NAME:HEADER: directories that hold such a file are kept with it alone")
    ] = ()
    exclude_caches: Annotated[bool, _about("the same for CACHEDIR.TAG with its signature")] = False
    one_file_system: Annotated[bool, _about("leave out what is mounted below the paths")] = False
    exclude_larger_than: Annotated[int, Meta(ge=0, description="bytes")] | None = None
    snapshot: Annotated[
        Literal["auto", "never", "required"],
        _about("read from read-only snapshots of btrfs subvolumes; auto: where root can make some"),
    ] = "auto"


_Backwards = tuple[FilesOptions, list[tuple[bytes, bytes]]]


class FilesRestore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where and how files are restored. What is there already is replaced as ``overwrite`` says; nothing is deleted."""

    to: Annotated[str, _about("an absolute local path, or a URL")]
    overwrite: Annotated[
        Overwrite,
        _about(
            "what is there and differs; if-changed: files of the same size and time count as equal, unread; "
            "if-newer: only what is older than in the snapshot; never: nothing. A URL knows always and never"
        ),
    ] = "always"
    allow_devices: Annotated[bool, _about("create device nodes, which only root can")] = False
    owners: Annotated[Literal["auto", "always", "never"], _about("set users and groups; auto: when root")] = "auto"
    ownership_by_name: Annotated[bool, _about("find users and groups by name, else by number")] = False


class FilesSource:
    """Backs up files from snapshots of their subvolumes where there are such; else as they are at the moment, which is
    consistent across files only if nobody writes."""

    name: ClassVar[str] = "files"
    Options: ClassVar[type[msgspec.Struct]] = FilesOptions
    RestoreOptions: ClassVar[type[msgspec.Struct]] = FilesRestore

    def __init__(self, options: FilesOptions, site: Site = NOWHERE) -> None:
        self._options, self._site = options, site
        self._places = [parse_place(path) for path in options.paths]
        self._exclusion = _exclusion(options)
        self._refuse_nested_urls()

    def claims(self) -> list[str]:
        """The paths and URLs that the backup reads, symlinks above the last name resolved."""
        return sorted({place.claim for place in self._places})

    def snap(self) -> AbstractAsyncContextManager[Moved]:
        """Where local paths are read from. Raises :class:`SourceMissing`, and :class:`SourceError` where no snapshot
        can be made that is required."""
        return self._snap()

    @asynccontextmanager
    async def _snap(self) -> AsyncIterator[Moved]:
        await asyncio.to_thread(_require, self._places)
        paths = [place.path for place in self._places if isinstance(place, Local)]
        if self._options.snapshot == "never" or not paths:
            yield {}
            return
        required = self._options.snapshot == "required"
        freezing = frozen_places.frozen(paths, self._site, required=required, left_out=self._is_left_out)
        moved = await asyncio.to_thread(freezing.__enter__)
        try:
            yield moved
        finally:
            await asyncio.to_thread(freezing.__exit__, None, None, None)

    def _is_left_out(self, path: bytes) -> bool:
        """Whether nothing is read of a subvolume, or of what is mounted, below the paths."""
        wanted = {place.path for place in self._places}
        while path not in wanted:
            if self._options.one_file_system or self._exclusion.by_path(path, directory=True):
                return True
            path = os.path.dirname(path)
        return False

    def export(self, frozen: Moved | None) -> Iterator[Exported]:
        """All entries. Raises :class:`SourceMissing` for a URL that vanished."""
        return self.export_rest(frozen, lambda _: None)

    def export_rest(self, frozen: Moved | None, passed: Passed) -> Iterator[Exported]:
        """The same without what is passed. Of a URL all is yielded."""
        remotes = {place.path: place for place in self._places if isinstance(place, Remote)}
        if remotes:
            return self._export_remotes(remotes)
        return iter(self._tree(frozen, passed=passed))

    def backwards(self, frozen: Moved | None) -> Recipe | None:
        """What makes the same in the opposite order elsewhere; of a URL nothing does."""
        if not all(isinstance(place, Local) for place in self._places):
            return None
        given = msgspec.msgpack.encode((self._options, [*(frozen or {}).items()]))
        return Recipe(makers.name_of(export_backwards), (given,))

    def entries_backwards(self, frozen: Moved | None) -> Iterator[Exported]:
        """All entries of local paths, siblings in the opposite order."""
        return iter(self._tree(frozen, backwards=True))

    def _tree(self, frozen: Moved | None, **order: Any) -> LocalTree:
        wanted, one_file_system = plan([place.path for place in self._places]), self._options.one_file_system
        return LocalTree(wanted, self._exclusion, one_file_system=one_file_system, moved=frozen, **order)

    def sizes(self, frozen: Moved | None) -> Iterator[int]:
        """The size of each file that a backup will read; of URLs, which would have to be listed twice, nothing."""
        if all(isinstance(place, Local) for place in self._places):
            wanted = plan([place.path for place in self._places])
            one_file_system = self._options.one_file_system
            tree = LocalCensus(wanted, self._exclusion, one_file_system=one_file_system, moved=frozen)
            for one in tree:
                if isinstance(one, Siblings):
                    yield from (found.st_size for _, found in one.looks if stat.S_ISREG(found.st_mode))
                elif isinstance(one, Entry) and one.node.type == "file" and not one.error:
                    yield one.node.size

    def _export_remotes(self, remotes: dict[bytes, Remote]) -> Iterator[Entry]:
        known: set[bytes] = set()
        for path in sorted(remotes, key=lambda path: path.split(b"/")):
            for folder in folders_above(path):
                if folder.path not in known:
                    known.add(folder.path)
                    yield folder
            filesystem, top = remotes[path].open()
            yield from ObjectTree(filesystem, top, path, self._exclusion)

    def _refuse_nested_urls(self) -> None:
        remotes = [place for place in self._places if isinstance(place, Remote)]
        if remotes and len(remotes) < len(self._places):
            raise BadOptions("local paths and URLs cannot be in one backup")
        paths = sorted({place.path for place in remotes}, key=lambda path: path.split(b"/"))
        for former, path in pairwise(paths):
            if path.startswith(former + b"/"):
                raise BadOptions(f"{os.fsdecode(path)} lies inside {os.fsdecode(former)}: name only one of them")

    @classmethod
    def restore_claims(cls, options: FilesRestore, site: Site = NOWHERE) -> list[str]:
        """The one place that the restore writes to, symlinks resolved."""
        place = parse_place(options.to)
        if isinstance(place, Remote) and options.overwrite not in ("always", "never"):
            raise BadOptions(f"overwrite: {options.overwrite} needs the times of files, which a URL does not keep")
        return [os.path.realpath(place.claim) if isinstance(place, Local) else place.claim]

    @classmethod
    def import_(cls, options: FilesRestore, claims: Sequence[str], site: Site = NOWHERE) -> Sink:
        """Open the place, creating it. Raises :class:`snappy.errors.UnsafePath` for a symlink on the way."""
        place = claimed_place(claims[0])
        if isinstance(place, Remote):
            return ObjectSink(*place.open(), keep=options.overwrite == "never")
        return LocalSink(
            place.path,
            owner=_owner(options),
            allow_devices=options.allow_devices,
            overwrite=options.overwrite,
        )


def export_backwards(given: bytes) -> Iterator[Exported]:
    """What :meth:`FilesSource.backwards` names."""
    options, frozen = from_msgpack(given, _Backwards)
    return FilesSource(options).entries_backwards(dict(frozen))


def _owner(options: FilesRestore) -> Owner | None:
    if options.owners == "never" or (options.owners == "auto" and os.geteuid() != 0):
        return None
    return by_name if options.ownership_by_name else by_number


def _exclusion(options: FilesOptions) -> Exclusion:
    tags = [Tag.parse(text) for text in options.exclude_if_present]
    if options.exclude_caches:
        tags.append(Tag(CACHE_TAG, CACHE_SIGNATURE))
    return Exclusion(options.exclude, options.iexclude, tags, options.exclude_larger_than)


def _require(places: Iterable[Place]) -> None:
    for place in places:
        there = os.path.lexists(place.path) if isinstance(place, Local) else _exists(place)
        if not there:
            raise SourceMissing(f"{place.claim} does not exist")


def _exists(place: Remote) -> bool:
    filesystem, path = place.open()
    try:
        return bool(filesystem.exists(path))
    except Exception as error:  # filesystems raise what their libraries raise
        raise SourceMissing(f"{place.claim} cannot be read: {error}") from error
