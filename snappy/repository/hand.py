"""One worker process as the backup has it: what it is to read, and what it says of that."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Protocol

from snappy.repository.bunch import Bunch
from snappy.repository.format import MIB
from snappy.repository.link import (
    LOST,
    MORE,
    Batch,
    BunchRead,
    FileOrder,
    FromWorker,
    Packed,
    Part,
    Reached,
    Round,
)
from snappy.repository.member import Captain, Member
from snappy.repository.relay import FilePart, Wanted

BYTES_AT_A_WORKER = 8 * MIB
FILES_AT_A_WORKER = 512
"""A worker that has more than this still to read is given no more."""


class Skipper(Captain, Protocol):
    """Who decides what becomes of what a worker of a backup says. See :class:`snappy.repository.crew.Crew`."""

    def take_round(self, hand: Hand, read: Round) -> None: ...

    def take_pack(self, packed: Packed) -> None: ...

    def go_on(self, part: FilePart) -> None: ...


class Hand(Member):
    """One worker of a backup."""

    def __init__(self, crew: Skipper, number: int, end: socket.socket) -> None:
        super().__init__(crew, number, end)
        self._crew = crew
        self.bytes = 0
        self._given = 0
        self._files = 0
        self._wanted: dict[int, tuple[Wanted, bool]] = {}
        self._bunches: dict[int, Bunch] = {}

    def has_room(self) -> bool:
        """Whether it has so little to do that it would soon be idle."""
        busy = self.bytes >= BYTES_AT_A_WORKER or self._files >= FILES_AT_A_WORKER
        return bool(self.process) and not (busy or self.ended)

    def is_busy(self) -> bool:
        """Whether it has anything to do."""
        return bool(self._wanted or self._bunches)

    def take(self, files: Sequence[Wanted | Bunch]) -> Batch:
        """Note the files as its own."""
        batch = Batch([], [])
        for file in files:
            self._given += 1
            self.bytes += file.size
            if isinstance(file, Bunch):
                batch.bunches.append(file.order(self._given))
                self._bunches[self._given] = file
                self._files += file.files
            else:
                batch.files.append(_order(self._given, file))
                self._wanted[self._given] = (file, False)
                self._files += 1
        return batch

    def take_bunch(self, read: BunchRead) -> None:
        """Tell who wants the bunch."""
        bunch = self._bunches[read.number]
        bunch.done(read)
        self.bytes -= bunch.size
        self._files -= bunch.files
        del self._bunches[read.number]

    def take_part(self, part: Part) -> None:
        """Tell who wants the file."""
        file, begun = self._wanted[part.number]
        if not begun and (part.sizes or part.state != LOST):  # who is told of blobs must know where they begin
            file.begun(part.skipped)
            self._wanted[part.number] = (file, True)
        for blob, size in part.named():
            file.read(blob, size)
        if part.state != MORE:
            (file.lost if part.state == LOST else file.done)(part.remark)
            self.bytes -= file.size
            self._files -= 1
            del self._wanted[part.number]

    def _part(self, number: int) -> FilePart:
        file, _ = self._wanted[number]
        assert isinstance(file, FilePart)
        return file

    def hear(self, message: FromWorker) -> None:
        if isinstance(message, Round):
            self._crew.take_round(self, message)
            self._crew.changed()
        elif isinstance(message, Reached):
            if rest := self._part(message.number).reached(message.offset):
                self._crew.go_on(rest)
        elif isinstance(message, Packed):
            self._crew.take_pack(message)


def _order(number: int, file: Wanted) -> FileOrder:
    recipe = file.recipe
    return FileOrder(number, recipe.maker, recipe.arguments, file.skip, isinstance(file, FilePart), file.cut)
