"""Snapshots of btrfs subvolumes, by the ioctls of linux/btrfs.h. All take an open directory and raise ``OSError``."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

TOP_INODE = 256
"""Of each subvolume's top directory."""
STUB_INODE = 2
"""Of the empty directory that a snapshot has where another subvolume begins."""
READ_ONLY = 1 << 1
MOST_REFERENCES = 255

_WRITE, _READ = 1, 2


def _request(number: int, size: int, direction: int) -> int:
    return direction << 30 | size << 16 | 0x94 << 8 | number


SNAP_DESTROY = _request(15, 4096, _WRITE)
SNAP_CREATE_V2 = _request(23, 4096, _WRITE)
SUBVOL_GETFLAGS = _request(25, 8, _READ)
GET_SUBVOL_ROOTREF = _request(61, 4096, _READ | _WRITE)
INO_LOOKUP_USER = _request(62, 4096, _READ | _WRITE)


class _Reference(NamedTuple):
    """A subvolume within another: its id, and the inode of the directory that it lies in."""

    tree: int
    directory: int


def is_top(folder: int) -> bool:
    """Whether it is the top of a subvolume."""
    if os.fstat(folder).st_ino != TOP_INODE:
        return False
    try:
        fcntl.ioctl(folder, SUBVOL_GETFLAGS, bytearray(8))
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP):
            return False
        raise
    return True


def snapshot(top: int, name: bytes) -> None:
    """Make a snapshot of the subvolume, which nobody can write to, of that name in its top."""
    fcntl.ioctl(top, SNAP_CREATE_V2, bytearray(struct.pack("=qQQ32x4040s", top, 0, READ_ONLY, name)))


def destroy(above: int, name: bytes) -> None:
    """Remove a subvolume by its name in the directory ``above``."""
    fcntl.ioctl(above, SNAP_DESTROY, bytearray(struct.pack("=q4088s", 0, name)))


def nested(top: int) -> Iterator[bytes]:
    """The paths, from that top, of the subvolumes that lie directly in this one."""
    for reference in _references(top):
        asked = bytearray(struct.pack("=QQ4080x", reference.directory, reference.tree))
        fcntl.ioctl(top, INO_LOOKUP_USER, asked)
        name, folder = (_text(part) for part in struct.unpack("=16x256s3824s", asked))
        yield folder + name


def _references(top: int) -> Iterator[_Reference]:
    least = 0
    while True:
        found = bytearray(struct.pack("=Q4088x", least))
        more = False
        try:
            fcntl.ioctl(top, GET_SUBVOL_ROOTREF, found)
        except OSError as error:
            more = error.errno == errno.EOVERFLOW
            if not more:
                raise
        count = found[8 + MOST_REFERENCES * 16]
        for place in range(count):
            reference = _Reference(*struct.unpack_from("=QQ", found, 8 + 16 * place))
            least = reference.tree + 1
            yield reference
        if not more:
            return


def _text(padded: bytes) -> bytes:
    return padded.split(b"\0", 1)[0]
