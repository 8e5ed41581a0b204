"""What passes between a source plug-in and the engine: nodes, entries, and the sink of a restore.

A *node* is the metadata of one file, directory, link or device; restic's ``Node`` with names as bytes.
An *entry* is a node on its way into a backup. A *sink* is where a restore puts what it reads.

Paths are bytes, absolute inside the snapshot, ``/``-separated, without ``.`` or ``..`` (``b"/usr/bin/env"``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import BinaryIO, Literal, NamedTuple, Protocol, runtime_checkable

import msgspec

NodeType = Literal["file", "dir", "symlink", "dev", "chardev", "fifo", "socket", "irregular"]


class Node(msgspec.Struct, kw_only=True):
    """Metadata of one object. Times are nanoseconds since the epoch; ``mode`` holds the twelve Unix permission
    bits (setuid, setgid and sticky with them), never the type."""

    name: bytes
    type: NodeType
    mode: int = 0
    mtime_ns: int = 0
    atime_ns: int = 0
    ctime_ns: int = 0
    uid: int = 0
    gid: int = 0
    user: str = ""
    group: str = ""
    inode: int = 0
    device_id: int = 0
    """The device the object lies on (``st_dev``); kept for hard links only, as restic does."""
    size: int = 0
    links: int = 0
    link_target: bytes = b""
    device: int = 0
    """The device that a device node stands for (``st_rdev``)."""
    xattrs: dict[bytes, bytes] = {}
    content: list[bytes] | None = None
    """The blob ids (32 bytes each) of a file, in order."""
    subtree: bytes | None = None
    """The tree id (32 bytes) of a directory."""
    error: str = ""


class Recipe(NamedTuple):
    """How to come by a file's content anew, in whatever process: what the callable ``maker``, written as
    ``module:name``, makes of ``arguments`` (numbers, texts, bytes) has the methods of :class:`Content`. The file can
    be opened at any time, before or after others."""

    maker: str
    arguments: tuple[int | str | bytes, ...]


class Content(Protocol):
    """A file's content as :class:`Entry` describes it."""

    def open(self) -> BinaryIO: ...

    def changed(self) -> str: ...


class Extent(NamedTuple):
    """Bytes of an image that follow each other."""

    offset: int
    length: int


class Image(Protocol):
    """What there is to know of a disk's image before it is read. What ``open`` of its entry gives can ``seek``. Each
    may raise ``OSError``, as ``open`` may."""

    @property
    def point(self) -> str:
        """The moment that the image shows, named so that no other ever has that name; empty: nothing is known of
        changes between two moments, and no later backup need ask."""

    def allocated(self) -> Iterable[Extent]:
        """In any order, all that may be other than zeros."""

    def changed_since(self, point: str) -> Iterable[Extent] | None:
        """In any order, all that may be other than it was at that moment, up to the end that it had then; ``None`` if
        nobody knows. What is left out here is not read, and is lost if it was changed."""


class Entry(msgspec.Struct, kw_only=True):
    """One object that a source yields. ``open`` is given for files and is called only if the content is needed.

    A source yields entries depth-first: a directory, then all below it, siblings sorted by their names' bytes.
    The directories on the way from ``/`` to what was asked for are yielded too, ``/`` itself is not.
    """

    path: bytes
    node: Node
    open: Callable[[], BinaryIO] | None = None
    """Raises ``OSError`` when this one file cannot be read: it is left out, with a warning. A
    :class:`snappy.errors.SnappyError`, here or from the file's ``read`` and ``close``, ends the whole backup."""
    changed: Callable[[], str] | None = None
    """Called when the content was read: why it may be torn (the file changed meanwhile), or an empty string."""
    recipe: Recipe | None = None
    """Stands for ``open`` and ``changed`` where another process does the reading; ``None`` where only this one can."""
    image: Image | None = None
    """Given for a file that is a disk's image, of the size that its node says."""
    error: str = ""
    """Why the object (or the inside of a directory) could not be read; the backup goes on with a warning. The
    object is left out; a directory is kept, empty."""
    warning: str = ""
    """What of the metadata could not be read; the object is kept."""


Look = tuple[bytes, os.stat_result]
"""A file's name, and what ``lstat`` says of it."""


class Seen(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What tells a file of a known directory from all others, and its content from any later one."""

    name: bytes
    st_dev: int
    st_ino: int
    st_size: int
    st_mtime_ns: int
    st_ctime_ns: int


class SmallFile(NamedTuple):
    """A file that was read in one go."""

    data: bytes
    found: os.stat_result
    """What the system says of it, after it was read."""
    xattrs: dict[bytes, bytes]
    changed: str
    """Why ``data`` may be torn, or an empty string."""
    warning: str
    """What of the metadata could not be read."""


class SmallFiles(Protocol):
    """Files of one directory."""

    def read(self, seen: Seen) -> SmallFile:
        """Raises ``OSError`` when it cannot be read, or is another file by now."""


class Siblings(NamedTuple):
    """Objects of one directory, in order and none of them a directory, that a source looked at and did no more, for as
    many entries: one of which the parent snapshot says the same needs no entry. ``entry`` makes one, until the source
    is asked for what comes next. Small files need none either where ``recipe``, in any process and at any time, makes
    :class:`SmallFiles` of the directory."""

    folder: bytes
    looks: list[Look]
    entry: Callable[[bytes, os.stat_result], Entry]
    recipe: Recipe | None = None


class Below(NamedTuple):
    """All that lies below a directory is as the parent snapshot says in ``tree``: so many files, of so many bytes
    together, and so many directories."""

    tree: bytes
    """The id of the directory's tree, 32 bytes; the repository has it and all that it leads to."""
    files: int
    size: int
    folders: int


Passed = Callable[[bytes], Below | None]
"""What lies below the directory at that path, if it is known: then the source leaves it out. Asked once for each
directory before it is opened, in the order of the entries."""


class Directory(NamedTuple):
    """The same of a directory, for its entry. What lies ``below`` is left out, where it is said."""

    path: bytes
    found: os.stat_result
    entry: Callable[[], Entry]
    below: Below | None = None


Exported = Entry | Siblings | Directory
"""What a source may yield."""


def each_entry(exported: Iterable[Exported]) -> Iterator[Entry]:
    """The entries that a source yields, siblings too one by one."""
    for one in exported:
        if isinstance(one, Entry):
            yield one
        elif isinstance(one, Directory):
            yield one.entry()
        else:
            yield from (one.entry(*look) for look in one.looks)


class Problem(msgspec.Struct, frozen=True):
    """What went wrong with one path, in a backup or a restore."""

    path: bytes
    message: str
    code: str = ""
    """The code of the error behind it (see :mod:`snappy.errors`); empty when the operating system said no."""


class FileWriter(Protocol):
    """An open file of a restore. Offsets are bytes; ranges never written read as zeros (a hole where possible)."""

    def write_at(self, offset: int, data: bytes) -> None: ...

    def finish(self) -> list[str]:
        """All bytes are there: set owner, mode, extended attributes and times. Returns what could not be kept, a
        sentence each."""

    def close(self) -> None:
        """Nothing more comes. What was written stays."""

    def discard(self) -> None:
        """The restore was given up, and the file may not be complete. After ``close`` this does nothing."""


class Standing(Enum):
    """What is to become of what stands in an object's place: it makes way, it stays as it is, or it is a file whose
    bytes may serve."""

    IN_THE_WAY = "in the way"
    LEFT = "left"
    USEFUL = "useful"


class StandingFile(Protocol):
    """A file in the place of one that is to be restored. Nobody writes to it: it stays, or another takes its place."""

    may_stay: bool
    """Whether it only lacks metadata if all its bytes are right: it has the size, and nobody else has a hand on it."""
    is_trusted: bool
    """Whether it may stay without being read."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Fewer bytes than asked for where the file ends, or cannot be read."""

    def finish(self) -> list[str]:
        """As of :class:`FileWriter`, for a file that stays."""

    def close(self) -> None: ...


class Sink(Protocol):
    """Where a restore puts entries. It must refuse, with :class:`snappy.errors.UnsafePath`, whatever would touch
    something outside its place. Calls come from one thread at a time for one path; ``write_at`` from any.
    What fails for one path raises ``OSError``; any other :class:`snappy.errors.SnappyError` ends the restore."""

    def standing(self, path: bytes, node: Node) -> Standing:
        """What is to become of what stands there; asked before anything but a directory is restored."""

    def reuse(self, path: bytes, node: Node) -> StandingFile | None:
        """The file that stands there, if it still does."""

    def directory(self, path: bytes, node: Node) -> None:
        """Create the directory (mode 0700 until ``finish``); an existing one is kept."""

    def file(self, path: bytes, node: Node) -> FileWriter:
        """Create the file, which will have ``node.size`` bytes, replacing whatever is there."""

    def link(self, path: bytes, existing: bytes) -> None:
        """Make ``path`` a hard link to ``existing``, which this restore has created before."""

    def special(self, path: bytes, node: Node) -> None:
        """Create a symlink, fifo, socket or device."""

    def finish(self, path: bytes, node: Node) -> list[str]:
        """As of :class:`FileWriter`, for what is no file; of a directory after all that is in it."""

    def close(self) -> None:
        """Release what is held; may be called twice."""


@runtime_checkable
class StreamSink(Protocol):
    """Where a restore goes that takes each file's content in order, one file after another: a database, a program. All
    calls come from one thread. Whatever any of them raises ends the restore."""

    def receive(self, path: bytes, node: Node, content: Iterator[bytes]) -> list[str]:
        """Take a file; files come in the order of the snapshot, without the directories around them. What ``content``
        raises means that the rest will not come: the file must not count as whole. Returns what could not be kept, a
        sentence each."""

    def finish(self) -> list[str]:
        """All files were received: make them count. Returns as ``receive``."""

    def close(self) -> None:
        """Release what is held, and give up what was not finished; may be called twice."""


Identity = tuple[int, int]
"""What tells a file from all others of a place, whatever its name."""


@runtime_checkable
class SharedFile(FileWriter, Protocol):
    """A file of a :class:`SharedSink`."""

    def identity(self) -> Identity: ...


@runtime_checkable
class SharedSink(Sink, Protocol):
    """A sink whose place other processes of this machine can reach too: they bring contents, whole files or parts of
    one, into directories that were created before. All that :meth:`Sink.file` gives are :class:`SharedFile`."""

    def recipe(self) -> Recipe:
        """What makes a sink of the same place there."""

    def part(self, path: bytes, identity: Identity) -> FileWriter:
        """The file that another process has created and keeps open, which alone finishes it: ``finish`` does nothing
        here. Raises :class:`snappy.errors.UnsafePath` when it is another file by now."""
