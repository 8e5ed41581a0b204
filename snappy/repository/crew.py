"""The worker processes of one backup, seen from the process that walks: it hands out files, takes in blobs and packs.

What a worker does is in :mod:`snappy.repository.worker`. Which blobs are new is decided here, so that no two workers
store the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

from snappy.errors import SnappyError
from snappy.repository.bunch import Bunch
from snappy.repository.format import BlobType
from snappy.repository.hand import Hand
from snappy.repository.link import BunchRead, Claimed, Packed, Part, Round, Setup
from snappy.repository.pack import FinishedPack
from snappy.repository.relay import WORTH_PARTS, FilePart, Relay, Wanted
from snappy.repository.repo import Repository
from snappy.repository.team import Team, Workers


class Stored(NamedTuple):
    """New blobs that a worker stored: how many, and their plain and sealed bytes."""

    blobs: int
    plain: int
    sealed: int


class Crew(Team[Hand]):
    """Starts the workers. ``stored`` hears of new blobs and ``check``, which raises to end all, is asked often.

    Raises ``OSError`` when no process can be started. Use it as: :meth:`submit` ..., then :meth:`finish`; and always
    :meth:`close`. ``submit`` and ``finish`` are for one thread.
    """

    def __init__(
        self,
        repo: Repository,
        setup: Setup,
        workers: Workers,
        stored: Callable[[Stored], None],
        check: Callable[[], None],
    ) -> None:
        self._repo, self._stored = repo, stored
        super().__init__(repo.store, setup, workers.most, lambda number, end: Hand(self, number, end), check)

    def submit(self, files: Sequence[Wanted | Bunch]) -> None:
        """Have the files read by one worker, in this order. Blocks while all that are ready have enough to do."""
        with self._changed:
            while not (free := [hand for hand in self._hands if hand.has_room()]):
                self._wait()
            self.raise_failure()
            hand = min(free, key=lambda hand: hand.bytes)
            batch = hand.take([self._whole_or_part(file) for file in files])
        hand.send(batch)

    def _whole_or_part(self, file: Wanted | Bunch) -> Wanted | Bunch:
        if isinstance(file, Bunch):
            return file
        return Relay(file).part(file.skip) if file.size - file.skip >= WORTH_PARTS and len(self._hands) > 1 else file

    def go_on(self, part: FilePart) -> None:
        """Have one more part of a file read, by who has least to do."""
        with self._changed:
            hand = min((hand for hand in self._hands if hand.process), key=lambda hand: hand.bytes)
            batch = hand.take([part])
        hand.send(batch)

    def finish(self) -> None:
        """Return when all files are read and all that was new in them is stored."""
        self._wait_until(lambda: not any(hand.is_busy() for hand in self._hands))
        self.end()

    def take_round(self, hand: Hand, read: Round) -> None:
        """Answer which of a round's blobs are new, and tell those who want its files. Without an answer the worker
        does no more, but what it uploads meanwhile is taken in."""
        try:
            self._check()
        except SnappyError as error:
            self.fail(error)
            return
        named = chain.from_iterable(one.named() for one in chain[Part | BunchRead](read.parts, read.bunches))
        hand.send(Claimed(bytes(self._repo.claim_blobs(BlobType.DATA, named))))
        for part in read.parts:
            hand.take_part(part)
        for bunch in read.bunches:
            hand.take_bunch(bunch)

    def take_pack(self, packed: Packed) -> None:
        """Learn where new blobs lie."""
        pack = FinishedPack(packed.pack, packed.size, packed.blob_count, packed.plain, packed.header)
        self._repo.take_in(pack)
        self._stored(Stored(pack.blob_count, pack.plain, pack.sealed))
