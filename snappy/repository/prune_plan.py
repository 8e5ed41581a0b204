"""What a prune would do: a value, made before anything is touched, by the rules of restic's
``internal/repository/prune.go``.

A pack that nothing uses is deleted. One of which a part is used may be repacked: what is used of it is stored again,
and then it is deleted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from snappy.errors import Damaged
from snappy.repository.format import MIB, BlobType, PackId
from snappy.repository.listed_blobs import Copy, ListedBlobs
from snappy.repository.sizes import parse_size

UNLIMITED = "unlimited"
_PERCENT = re.compile(r"(\d{1,2}(?:\.\d{1,6})?)%\Z")

LEAST_PACK = 4 * MIB
"""Bytes; no program makes smaller packs on purpose."""
SMALL_PACKS = 10
"""Fewer small packs are not worth the trouble, and a single one must not be repacked each time."""
_MOST_COPIES = 255
_LAST = 0
"""Of several copies of a blob, one is left that was not looked at."""


class PruneOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How much is repacked; the words and meanings are those of ``restic prune``."""

    max_unused: str = "5%"
    """Unused data that may stay: ``5%`` of what remains, ``500M`` or ``unlimited``."""
    max_repack_size: str = ""
    """So much is repacked at most; without it there is no limit."""
    repack_smaller_than: str = ""
    """Packs smaller than this are joined."""
    repack_cacheable_only: bool = False
    """Packs of trees alone are repacked."""
    repack_uncompressed: bool = False
    """Packs in which anything is uncompressed are repacked."""

    def limits(self) -> Limits:
        """What the words mean. Raises :class:`BadOptions`."""
        return Limits(
            tolerated=_Tolerated.parse(self.max_unused),
            repacked=parse_size(self.max_repack_size) if self.max_repack_size else math.inf,
            small=parse_size(self.repack_smaller_than) if self.repack_smaller_than else 0,
            trees_only=self.repack_cacheable_only,
            compresses=self.repack_uncompressed,
        )


class _Tolerated(NamedTuple):
    """Unused bytes that may stay: a share of what is used, or so many."""

    share: float
    size: float

    @classmethod
    def parse(cls, text: str) -> _Tolerated:
        if text == UNLIMITED:
            return cls(0.0, math.inf)
        if match := _PERCENT.match(text):
            percent = float(match[1])
            return cls(percent / (100 - percent), 0.0)
        return cls(0.0, parse_size(text))

    def bytes(self, used: int) -> float:
        return int(self.share * used) if self.share else self.size


class Limits(NamedTuple):
    """What :class:`PruneOptions` mean. Sizes are bytes."""

    tolerated: _Tolerated
    repacked: float
    small: int
    trees_only: bool
    compresses: bool


class BlobCounts(msgspec.Struct):
    """How many blobs there are, and become: in the words of ``restic prune --json``, as all of these."""

    used: int = 0
    duplicate: int = 0
    unused: int = 0
    total: int = 0
    repack: int = 0
    repack_remove: int = 0
    remove: int = 0
    remove_total: int = 0
    remaining: int = 0


class ByteCounts(BlobCounts):
    """Their bytes, as they are stored, without the packs' headers."""

    unreferenced: int = 0
    """The bytes of packs that no index file lists."""
    uncompressed: int = 0
    remaining_unused: int = 0


class PackCounts(msgspec.Struct):
    """How many packs there are, and what becomes of them."""

    used: int = 0
    unused: int = 0
    partly_used: int = 0
    unreferenced: int = 0
    total: int = 0
    keep: int = 0
    repack: int = 0
    remove: int = 0
    remove_total: int = 0


class PruneStats(msgspec.Struct):
    """What a plan comes to."""

    blobs: BlobCounts = msgspec.field(default_factory=BlobCounts)
    bytes: ByteCounts = msgspec.field(default_factory=ByteCounts)
    packfiles: PackCounts = msgspec.field(default_factory=PackCounts)


class PrunePlan(NamedTuple):
    """The packs to repack, those to delete that nothing uses, those to delete that no index file lists, and those that
    are listed, not there and not needed: they leave the index."""

    repack: list[PackId]
    delete: list[PackId]
    unlisted: list[PackId]
    missing: list[PackId]
    stats: PruneStats

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.repack or self.delete or self.unlisted or self.missing)


class _Pack:
    """What is used of a pack; ``kind`` is None where it has blobs of both."""

    __slots__ = ("duplicates", "id", "kind", "uncompressed", "unused", "unused_size", "used", "used_size")

    def __init__(self, pack: PackId, overhead: int) -> None:
        self.id = pack
        self.used = self.unused = self.duplicates = 0
        self.used_size, self.unused_size = overhead, 0
        self.kind: BlobType | None = None
        self.uncompressed = False

    @property
    def size(self) -> int:
        return self.used_size + self.unused_size

    def add(self, copy: Copy, *, used: bool, duplicate: bool) -> None:
        place = copy.location
        self.kind = place.kind if self.kind is place.kind or not (self.used or self.unused) else None
        self.uncompressed |= not place.uncompressed_length
        self.duplicates += duplicate
        if used:
            self.used, self.used_size = self.used + 1, self.used_size + place.length
        else:
            self.unused, self.unused_size = self.unused + 1, self.unused_size + place.length

    def take_for_used(self, size: int) -> None:
        """One of its duplicates is the copy that stays."""
        self.used, self.used_size = self.used + 1, self.used_size + size
        self.unused, self.unused_size = self.unused - 1, self.unused_size - size


class PrunePlanner:
    """Makes one plan. ``blobs`` must be marked with all that is used; ``compressing`` says whether the repository
    knows compression."""

    def __init__(self, blobs: ListedBlobs, limits: Limits, *, compressing: bool) -> None:
        self._blobs, self._limits, self._compressing = blobs, limits, compressing
        self._stats = PruneStats()
        self._packs = [_Pack(pack, blobs.overhead(number)) for number, pack in enumerate(blobs.packs)]
        self._target = 0.0

    def plan(self, stored: Mapping[PackId, int]) -> PrunePlan:
        """``stored`` are the packs that are there, with their sizes. Raises :class:`Damaged` where one that is needed
        is missing or of another size."""
        self._look_at_blobs()
        unlisted = [pack for pack in stored if self._blobs.number(pack) is None]
        self._stats.bytes.unreferenced = sum(stored[pack] for pack in unlisted)
        self._target = self._target_size()
        there = [pack for pack in self._packs if pack.id in stored]
        missing = [pack for pack in self._packs if pack.id not in stored]
        self._refuse_damage(there, missing, stored)
        unused = [pack for pack in there if not pack.used]
        for pack in (*unused, *missing):
            self._stats.blobs.remove += pack.unused
            self._stats.bytes.remove += pack.unused_size
        repacked = self._choose(self._candidates([pack for pack in there if pack.used]))
        plan = PrunePlan(_ids(repacked), _ids(unused), unlisted, _ids(missing), self._stats)
        self._total(plan, len(there))
        return plan

    def _look_at_blobs(self) -> None:
        copies = self._copies()
        for copy in self._blobs.copies():
            count = copies[copy.first]
            self._packs[copy.pack].add(copy, used=count == 1, duplicate=count > 1)
            self._count(copy, "unused" if not count else "used" if count == 1 else "duplicate", 1)
        self._choose_duplicates(copies)

    def _copies(self) -> bytearray:
        """How many there are of each blob that is used; 255 stands for more, too."""
        used, copies = self._blobs.used, bytearray(len(self._blobs))
        for first, _ in self._blobs.places():
            if used[first] and copies[first] < _MOST_COPIES:
                copies[first] += 1
        return copies

    def _choose_duplicates(self, left: bytearray) -> None:
        """Of each blob with several copies the one that stays: in a pack that stays for others' sake, or has nothing
        but such (an interrupted prune made it), else the last one. ``left`` counts down to it, and is 1 from then on.
        """
        used = self._blobs.used
        for copy in self._blobs.copies({number for number, pack in enumerate(self._packs) if pack.duplicates}):
            more, pack = left[copy.first], self._packs[copy.pack]
            if not used[copy.first] or more == 1:
                continue
            if pack.used or pack.duplicates == pack.unused or more == _LAST:
                pack.take_for_used(copy.location.length)
                self._count(copy, "used", 1)
                self._count(copy, "duplicate", -1)
                left[copy.first] = 1
            else:
                left[copy.first] = _LAST if more == 2 else more - 1

    def _count(self, copy: Copy, field: str, by: int) -> None:
        counts, sizes = self._stats.blobs, self._stats.bytes
        setattr(counts, field, getattr(counts, field) + by)
        setattr(sizes, field, getattr(sizes, field) + by * copy.location.length)

    def _target_size(self) -> float:
        """Packs smaller than that are small. Four fifths of what nearly all packs reach: few are repacked for it."""
        if self._limits.small or not self._packs:
            return self._limits.small
        sizes = sorted(pack.size for pack in self._packs)
        return max(LEAST_PACK, sizes[len(sizes) * 3 // 100]) * 4 // 5

    def _refuse_damage(self, there: list[_Pack], missing: list[_Pack], stored: Mapping[PackId, int]) -> None:
        lost = [pack for pack in missing if pack.used]
        wrong = [pack for pack in there if pack.used and pack.size != stored[pack.id]]
        for packs, what in ((lost, "missing"), (wrong, "not of the size that the index says")):
            if packs:
                raise Damaged(f"packs that snapshots need are {what}: {len(packs)}, the first is {packs[0].id.hex()}")

    def _candidates(self, packs: list[_Pack]) -> list[_Pack]:
        """Those that may be repacked, in the order in which they are."""
        counts = self._stats.packfiles
        candidates, small = [], []
        for pack in packs:
            counts.used += not pack.unused
            counts.partly_used += bool(pack.unused)
            self._stats.bytes.uncompressed += pack.size if self._compressing and pack.uncompressed else 0
            if self._limits.trees_only and pack.kind is BlobType.DATA:
                continue
            if pack.unused or pack.kind is None or self._must_compress(pack):
                candidates.append(pack)
            elif pack.size < self._target:
                small.append(pack)
        return sorted(candidates + (small if len(small) >= SMALL_PACKS else []), key=self._rank)

    def _rank(self, pack: _Pack) -> tuple[bool, bool, float]:
        """Trees first, then small packs, then those with the largest unused share."""
        return pack.kind is BlobType.DATA, pack.size >= self._target, -pack.unused_size / pack.used_size

    def _must_compress(self, pack: _Pack) -> bool:
        wanted = pack.kind is BlobType.TREE or self._limits.compresses
        return self._compressing and wanted and pack.uncompressed

    def _choose(self, candidates: list[_Pack]) -> list[_Pack]:
        sizes = self._stats.bytes
        tolerated = self._limits.tolerated.bytes(sizes.used)
        chosen = []
        for pack in candidates:
            if sizes.repack + pack.size >= self._limits.repacked:
                continue
            unused = sizes.duplicate + sizes.unused - sizes.remove - sizes.repack_remove
            must = pack.kind is not BlobType.DATA or self._must_compress(pack) or pack.size < self._target
            if must or unused >= tolerated:
                chosen.append(pack)
                self._count_repacked(pack)
        return chosen

    def _count_repacked(self, pack: _Pack) -> None:
        counts, sizes = self._stats.blobs, self._stats.bytes
        counts.repack += pack.used + pack.unused
        counts.repack_remove += pack.unused
        sizes.repack += pack.size
        sizes.repack_remove += pack.unused_size
        sizes.uncompressed -= pack.size if self._compressing and pack.uncompressed else 0

    def _total(self, plan: PrunePlan, there: int) -> None:
        counts, sizes, packs = self._stats.blobs, self._stats.bytes, self._stats.packfiles
        packs.unused, packs.unreferenced, packs.repack = len(plan.delete), len(plan.unlisted), len(plan.repack)
        packs.remove, packs.remove_total = packs.unused, packs.unused + packs.unreferenced
        packs.total = there + packs.unreferenced
        packs.keep = there - packs.remove - packs.repack
        for one in (counts, sizes):
            one.total = one.used + one.unused + one.duplicate
            one.remove_total = one.remove + one.repack_remove
        sizes.total += sizes.unreferenced
        sizes.remove_total += sizes.unreferenced
        for one in (counts, sizes):
            one.remaining = one.total - one.remove_total
        sizes.remaining_unused = sizes.duplicate + sizes.unused - sizes.remove - sizes.repack_remove


def _ids(packs: Iterable[_Pack]) -> list[PackId]:
    return [pack.id for pack in packs]
