"""Makes the index right again: what index files fail to list, or list wrongly, is read from the packs' own headers.

What the index says of a pack whose header cannot be read stays: it is all that leads to the blobs in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from snappy.errors import Corrupt, Damaged, NotFound
from snappy.repository.findings import Findings, Kind
from snappy.repository.format import PackId, parse_id
from snappy.repository.index_checker import IndexChecker
from snappy.repository.mending import Mender, Repaired
from snappy.repository.pack import PackedBlob, encode_header
from snappy.repository.progress import Cancelled, Progress, never
from snappy.repository.repo import Repository
from snappy.repository.store import FileType

_READERS = 4
_AT_ONCE = 64
"""Headers that may be in memory together."""


class IndexRepair:
    """Repairs the index of an open repository, which nobody has loaded. Hold an exclusive lock, unless ``dry_run``."""

    def __init__(
        self,
        repo: Repository,
        *,
        dry_run: bool = False,
        progress: Progress | None = None,
        cancelled: Cancelled = never,
    ) -> None:
        self._repo, self._cancelled = repo, cancelled
        self._progress = progress or Progress()
        self._findings = Findings()
        self._mender = Mender(repo, self._findings, dry_run=dry_run)
        self._index = IndexChecker(repo, self._findings, cancelled)

    def repair(self, *, read_all_packs: bool = False) -> Repaired:
        """Read the headers of packs that the index does not list as they are, or of all. May be called again after
        any death. Raises StorageError, and what ``cancelled`` raises."""
        self._index.check()
        sizes = {parse_id(name): size for name, size in self._repo.store.list(FileType.PACK)}
        missing = [pack for pack in self._index.listings if pack not in sizes]
        for pack in missing:
            self._findings.add(Kind.PACK_MISSING, pack, "it is not there; no index file lists it any more")
        doubtful = {pack: size for pack, size in sizes.items() if read_all_packs or self._is_doubtful(pack, size)}
        self._progress.expect(files=len(doubtful), size=0)
        stale = {*missing, *self._listed_anew(doubtful)}
        self._mender.renew_index(self._index, stale)
        return Repaired(
            written=self._mender.indexes_written,
            removed=self._mender.removed,
            findings=self._findings.kept(),
            finding_count=self._findings.damage + self._findings.hints,
        )

    def _is_doubtful(self, pack: PackId, size: int) -> bool:
        listing = self._index.listings.get(pack)
        return listing is None or listing.size != size

    def _listed_anew(self, packs: dict[PackId, int]) -> Iterator[PackId]:
        for pack, found in self._headers(packs):
            self._progress.add(files=1)
            if isinstance(found, str):
                self._fail(pack, found)
            elif not self._is_listed_so(pack, found):
                self._tell(pack)
                self._mender.list_pack(pack, found)
                yield pack

    def _headers(self, packs: dict[PackId, int]) -> Iterator[tuple[PackId, list[PackedBlob] | str]]:
        """The blobs of each pack, or why they are not known."""
        remaining = iter(packs.items())
        with ThreadPoolExecutor(_READERS, thread_name_prefix="pack-header") as pool:
            while together := list(islice(remaining, _AT_ONCE)):
                yield from pool.map(lambda pack: (pack[0], self._read(*pack)), together)

    def _read(self, pack: PackId, size: int) -> list[PackedBlob] | str:
        self._cancelled()
        try:
            return self._repo.pack_blobs(pack, size)
        except (Damaged, Corrupt, NotFound) as error:
            return error.message

    def _is_listed_so(self, pack: PackId, blobs: Iterable[PackedBlob]) -> bool:
        listing = self._index.listings.get(pack)
        return bool(listing and listing.header == hashlib.sha256(encode_header(list(blobs))).digest())

    def _tell(self, pack: PackId) -> None:
        if pack not in self._index.listings:
            self._findings.add(Kind.PACK_UNLISTED, pack, "no index file listed it; now one does")
        elif self._index.listings[pack]:
            self._findings.add(Kind.PACK_LISTING, pack, "the index listed it otherwise than its header; no longer")

    def _fail(self, pack: PackId, reason: str) -> None:
        if pack in self._index.listings:
            self._findings.add(Kind.PACK_HEADER, pack, f"what the index says of it stays: {reason}")
        else:
            self._findings.add(Kind.PACK_LOST, pack, reason)
