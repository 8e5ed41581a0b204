"""The ``block`` plug-in: a block device or an image file, as one sparse image; what did not change is found by hash."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import stat
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, BinaryIO, ClassVar, NamedTuple, cast

import msgspec
from msgspec import Meta

from snappy.errors import BadOptions, SourceDenied, SourceMissing
from snappy.repository import makers
from snappy.repository.entries import Entry, Extent, Node, Recipe
from snappy.repository.lstat import node_of
from snappy.repository.paths import shown
from snappy.sources.disks import DeviceDisk, FileDisk, data_of, look, names_device, size_of
from snappy.sources.image_sink import Disk, ImageSink
from snappy.sources.local_node import LOCAL_FILE, LocalFile
from snappy.sources.made_up import folders_above
from snappy.sources.places import Local, parse_place
from snappy.sources.site import NOWHERE, Site

ABOVE = b"/block"
READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class BlockOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is backed up."""

    path: Annotated[str, Meta(description="the absolute path of a block device, or of a file that is a disk's image")]


class BlockRestore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the image goes."""

    to: Annotated[str, Meta(description="the absolute path of a block device, or of the file to make")]
    overwrite: Annotated[
        bool, Meta(description="write to a device, whatever is on it; or take the place of a file that is there")
    ] = False


class Found(NamedTuple):
    """A device or image file, and its size in bytes."""

    path: bytes
    stat: os.stat_result
    size: int


class BlockSource:
    """Backs up a device or image as it is while it is read: as after a power cut at best, if nobody writes to it."""

    name: ClassVar[str] = "block"
    Options: ClassVar[type[msgspec.Struct]] = BlockOptions
    RestoreOptions: ClassVar[type[msgspec.Struct]] = BlockRestore

    def __init__(self, options: BlockOptions, site: Site = NOWHERE) -> None:
        self._path = _local(options.path).path

    def claims(self) -> list[str]:
        """The path, symlinks above its last name resolved."""
        return [os.fsdecode(self._path)]

    def snap(self) -> AbstractAsyncContextManager[Found]:
        """Nothing is frozen. Raises :class:`SourceMissing`, :class:`SourceDenied`, :class:`BadOptions`."""
        return self._snap()

    @asynccontextmanager
    async def _snap(self) -> AsyncIterator[Found]:
        yield await asyncio.to_thread(_find, self._path)

    def export(self, frozen: Found) -> Iterator[Entry]:
        """The image, at ``/block`` and its path."""
        path = ABOVE + frozen.path
        yield from folders_above(path)
        yield _device_entry(path, frozen) if stat.S_ISBLK(frozen.stat.st_mode) else _file_entry(path, frozen)

    @classmethod
    def restore_claims(cls, options: BlockRestore, site: Site) -> list[str]:
        """The device or file."""
        return [_local(options.to).claim]

    @classmethod
    def import_(cls, options: BlockRestore, claims: Sequence[str], site: Site) -> ImageSink:
        """Opens it when the image is known: what stands there stays if the snapshot has none."""
        path = os.fsencode(claims[0])
        return ImageSink(lambda node, _: _open_disk(path, node, options.overwrite))


def _local(text: str) -> Local:
    place = parse_place(text)
    if not isinstance(place, Local) or place.path == b"/":
        raise BadOptions(f"{text!r} is not the path of a device or file")
    return place


def _find(path: bytes) -> Found:
    try:
        found = look(path)
        if not (stat.S_ISBLK(found.st_mode) or stat.S_ISREG(found.st_mode)):
            raise BadOptions(
                f"{shown(path)} is neither a block device nor a file", hint="folders are for the plug-in files"
            )
        with open(_open(path, found), "rb", buffering=0) as file:
            return Found(path, found, size_of(file.fileno()))
    except PermissionError as error:
        raise SourceDenied(f"{shown(path)} cannot be read: {error.strerror}") from error
    except OSError as error:
        raise SourceMissing(f"{shown(path)} cannot be read: {error.strerror}") from error


def _open(path: bytes, found: os.stat_result) -> int:
    """The device or file that was found, not what somebody put in its place."""
    handle = os.open(path, READ_FLAGS | (0 if names_device(path) else os.O_NOFOLLOW))
    opened = os.fstat(handle)
    if (opened.st_dev, opened.st_ino, opened.st_rdev) != (found.st_dev, found.st_ino, found.st_rdev):
        os.close(handle)
        raise OSError(errno.ESTALE, "was replaced by something else while the backup ran")
    return handle


class Allocated:
    """What there is to know of an image: its holes. See :class:`snappy.repository.entries.Image`."""

    point = ""

    def __init__(self, found: Found) -> None:
        self._found = found

    def allocated(self) -> Iterable[Extent]:
        with open(_open(self._found.path, self._found.stat), "rb", buffering=0) as file:
            yield from data_of(file.fileno())

    def changed_since(self, point: str) -> None:
        """Nobody knows."""


def _file_entry(path: bytes, found: Found) -> Entry:
    status = found.stat
    node = node_of(os.path.basename(path), status)
    node.links = 1
    file = LocalFile(found.path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    entry = Entry(path=path, node=node, image=Allocated(found), recipe=Recipe(LOCAL_FILE, file))
    entry.open, entry.changed = file.open, file.changed
    return entry


class Device(NamedTuple):
    """A block device, as :class:`snappy.repository.entries.Content`."""

    path: bytes
    number: int

    def open(self) -> BinaryIO:
        """What the kernel keeps of it is forgotten first: a file system on it writes past that."""
        handle = os.open(self.path, READ_FLAGS)
        found = os.fstat(handle)
        if not stat.S_ISBLK(found.st_mode) or found.st_rdev != self.number:
            os.close(handle)
            raise OSError(errno.ESTALE, "was replaced by another device while the backup ran")
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        return cast(BinaryIO, io.FileIO(handle, "rb"))

    def changed(self) -> str:
        """Nobody knows."""
        return ""


DEVICE = makers.name_of(Device)


def _device_entry(path: bytes, found: Found) -> Entry:
    """A file, of which nothing says that it did not change."""
    device = Device(found.path, found.stat.st_rdev)
    now = time.time_ns()
    node = Node(name=os.path.basename(path), type="file", mode=0o600, size=found.size, links=1)
    node.mtime_ns = node.atime_ns = node.ctime_ns = now
    entry = Entry(path=path, node=node, image=Allocated(found), recipe=Recipe(DEVICE, device))
    entry.open, entry.changed = device.open, device.changed
    return entry


def _open_disk(path: bytes, node: Node, overwrite: bool) -> Disk:
    if not names_device(path):
        return FileDisk(path, node, overwrite=overwrite)
    if not overwrite:
        raise BadOptions(
            f"{shown(path)} would be overwritten", hint="`overwrite` says that nothing on it is needed any more"
        )
    return DeviceDisk(path, node.size)
