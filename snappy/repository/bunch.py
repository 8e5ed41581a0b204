"""Small new files of one directory, that are read, named and described together by whichever process stores them: for
each by itself everything but its bytes costs more than its bytes do."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence

from snappy.repository import makers
from snappy.repository.contents import torn, unreadable
from snappy.repository.entries import Look, Recipe, Seen, SmallFile, SmallFiles
from snappy.repository.format import MIB, BlobId, blob_id
from snappy.repository.journal import FileId, file_id
from snappy.repository.link import BunchOrder, BunchRead, Remark
from snappy.repository.lstat import node_of
from snappy.repository.pack_writer import NamedData
from snappy.repository.paths import check_name, prefix
from snappy.repository.tree import EncodedNode, encode_node

SMALL = MIB // 16
"""Bytes of the largest file that comes in a bunch."""
ENOUGH = MIB
"""Bytes of a bunch to which no file is added."""


def is_small(found: os.stat_result) -> bool:
    """Whether it is a file that may come in a bunch."""
    return found.st_size <= SMALL and stat.S_ISREG(found.st_mode)


class Bunch:
    """Some files of ``folder`` that are to be read. ``told`` learns what came of it, once."""

    skip = 0

    def __init__(self, folder: bytes, recipe: Recipe, looks: Sequence[Look], told: Callable[[BunchRead], None]) -> None:
        self.folder, self.recipe, self.looks, self.done = folder, recipe, looks, told
        self.files = len(looks)
        self.size = sum(found.st_size for _, found in looks)

    def order(self, number: int) -> BunchOrder:
        """What is asked of who reads them. Raises :class:`snappy.errors.UnsafePath` for a bad name."""
        seen = [
            Seen(check_name(name), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            for name, found in self.looks
        ]
        return BunchOrder(number, self.folder, self.recipe.maker, self.recipe.arguments, seen)


class BunchReader:
    """Reads the files of an order. ``chunks`` are their contents, none of them empty; ``result`` says all else."""

    def __init__(self, order: BunchOrder) -> None:
        self.chunks: list[NamedData] = []
        self.result = BunchRead(order.number)
        self._above = prefix(order.folder)
        files: SmallFiles = makers.find(order.maker)(*order.arguments)
        for seen in order.files:
            try:
                file = files.read(seen)
            except OSError as error:
                self._remark(seen, unreadable(error))
            else:
                self._take(seen, file)
        self.result.blobs = b"".join(blob for blob, _ in self.chunks)

    def _take(self, seen: Seen, file: SmallFile) -> None:
        result, size = self.result, len(file.data)
        if file.changed or file.warning or size != seen.st_size:
            self._doubt(seen, file)
        blobs: list[BlobId] = []
        if size:
            blobs.append(blob_id(file.data))
            self.chunks.append((blobs[0], file.data))
            result.sizes.append(size)
            result.ids.append(self._id(seen))
        result.nodes.append(_described(seen, file, blobs))

    def _id(self, seen: Seen) -> FileId:
        path = self._above + seen.name
        return file_id(path, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino)

    def _doubt(self, seen: Seen, file: SmallFile) -> None:
        for remark in (file.warning, torn(file.changed, seen.st_size, len(file.data))):
            if remark:
                self._remark(seen, remark)

    def _remark(self, seen: Seen, text: str) -> None:
        self.result.remarks.append(Remark(self._above + seen.name, text))


def _described(seen: Seen, file: SmallFile, blobs: list[BlobId]) -> EncodedNode:
    """With the times of when it was seen: should it have changed since, the next backup will find them changed."""
    node = node_of(seen.name, file.found)
    node.mtime_ns = node.atime_ns = seen.st_mtime_ns
    node.ctime_ns = seen.st_ctime_ns
    node.size, node.content = len(file.data), blobs
    node.xattrs, node.error = file.xattrs, file.warning
    return encode_node(node)
