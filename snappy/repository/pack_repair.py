"""Saves what is whole in damaged packs: it goes into new packs, then the index forgets the old ones, then they go."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator

from snappy.errors import Corrupt, Damaged, NotFound
from snappy.repository.findings import Findings, Kind
from snappy.repository.format import BlobId, BlobType, PackId, parse_id
from snappy.repository.index_checker import IndexChecker
from snappy.repository.mending import Mender, Repaired
from snappy.repository.pack import PackedBlob
from snappy.repository.pack_checker import PackChecker
from snappy.repository.pack_proof import CheckedPack
from snappy.repository.progress import Cancelled, Progress, never
from snappy.repository.reader import LARGEST_READ
from snappy.repository.repo import Repository
from snappy.repository.store import FileType
from snappy.repository.team import NO_WORKERS, Workers

_UNREADABLE = (Damaged, Corrupt, NotFound)

Blob = tuple[BlobType, BlobId]


class PackRepair:
    """Repairs packs of an open repository whose index nobody has loaded. Hold an exclusive lock, unless ``dry_run``."""

    def __init__(
        self,
        repo: Repository,
        *,
        dry_run: bool = False,
        progress: Progress | None = None,
        cancelled: Cancelled = never,
        workers: Workers = NO_WORKERS,
    ) -> None:
        self._repo, self._cancelled, self._workers = repo, cancelled, workers
        self._progress = progress or Progress()
        self._findings = Findings()
        self._mender = Mender(repo, self._findings, dry_run=dry_run)
        self._index = IndexChecker(repo, self._findings, cancelled)
        self._harmed: set[PackId] = set()
        self._saved: set[Blob] = set()
        self._failed: set[Blob] = set()

    def repair(self, packs: Collection[PackId] = ()) -> Repaired:
        """Repair these, or without any all that are damaged: then every pack is read. May be called again after any
        death. Raises Damaged where the index has to be repaired first, NotFound for a pack that nobody knows,
        StorageError, and what ``cancelled`` raises."""
        self._index.check()
        if not self._index.is_whole:
            raise Damaged("an index file cannot be read", hint="`snappy repair index` first")
        sizes = {parse_id(name): size for name, size in self._repo.store.list(FileType.PACK)}
        self._check_known(packs, sizes)
        self._harmed = set(packs) or self._find_harmed(sizes)
        written = self._salvage_all(sizes)
        for kind, blob in self._failed - self._saved:
            if not self._is_whole_elsewhere(kind, blob):
                self._findings.add(Kind.BLOB_LOST, blob, f"no copy of this {kind.value} blob is whole")
        if self._mender.renew_index(self._index, self._harmed):
            for pack in self._harmed & sizes.keys():
                self._mender.remove(FileType.PACK, pack.hex())
        return Repaired(
            written=written,
            removed=self._mender.removed,
            findings=self._findings.kept(),
            finding_count=self._findings.damage + self._findings.hints,
        )

    def _check_known(self, packs: Iterable[PackId], sizes: dict[PackId, int]) -> None:
        for pack in packs:
            if pack not in sizes and pack not in self._index.listings:
                raise NotFound(f"there is no pack {pack.hex()}")

    def _find_harmed(self, sizes: dict[PackId, int]) -> set[PackId]:
        missing = {pack for pack in self._index.listings if pack not in sizes}
        for pack in missing:
            self._findings.add(Kind.PACK_MISSING, pack, "it is not there; no index file lists it any more")
        read = [
            CheckedPack(pack, sizes[pack], listing) for pack, listing in self._index.listings.items() if pack in sizes
        ]
        self._progress.expect(files=len(read), size=sum(pack.size for pack in read))
        with PackChecker(self._repo, self._findings, self._progress, self._cancelled, self._workers) as packs:
            packs.begin(read)
            packs.finish()
            return missing | packs.harmed

    # ---- salvage -------------------------------------------------------------------------------------------------

    def _salvage_all(self, sizes: dict[PackId, int]) -> int:
        """How many packs were written. Blobs that others hold whole need no new place."""
        listed: defaultdict[PackId, set[PackedBlob]] = defaultdict(set)
        for place in self._repo.index if self._harmed else ():
            if place.pack in self._harmed:
                kind, blob, pack, *where = place
                listed[pack].add(PackedBlob(kind, blob, *where))
        for pack in sorted(self._harmed):
            self._cancelled()
            size = sizes.get(pack, 0)
            for packed, data in self._opened(pack, size, listed[pack].union(self._header(pack, size))):
                self._keep(packed, data)
        self._repo.flush()
        return self._repo.stats.packs_written

    def _keep(self, blob: PackedBlob, data: bytes) -> None:
        if (blob.kind, blob.id) not in self._saved and not self._is_whole_elsewhere(blob.kind, blob.id):
            self._saved.add((blob.kind, blob.id))
            if not self._mender.dry_run:
                self._repo.save_again(blob.kind, [(blob.id, data)])

    def _header(self, pack: PackId, size: int) -> list[PackedBlob]:
        try:
            return self._repo.pack_blobs(pack, size)
        except _UNREADABLE:
            return []

    def _opened(self, pack: PackId, size: int, blobs: Iterable[PackedBlob]) -> Iterator[tuple[PackedBlob, bytes]]:
        """Those that are whole where they should lie, with their plain bytes."""
        within: list[PackedBlob] = []
        for blob in sorted(blobs, key=lambda blob: (blob.offset, blob.length)):
            if blob.offset + blob.length > size:
                self._failed.add((blob.kind, blob.id))
            else:
                within.append(blob)
        for run in _runs(within):
            yield from self._open_run(pack, run)

    def _open_run(self, pack: PackId, run: list[PackedBlob]) -> Iterator[tuple[PackedBlob, bytes]]:
        start, end = run[0].offset, max(blob.offset + blob.length for blob in run)
        view = memoryview(self._repo.read_pack(pack, start, end - start))
        for blob in run:
            try:
                yield blob, self._repo.open_blob(blob, view[blob.offset - start :][: blob.length])
            except Damaged:
                self._failed.add((blob.kind, blob.id))

    def _is_whole_elsewhere(self, kind: BlobType, blob: BlobId) -> bool:
        for place in self._repo.locations(kind, blob):
            if place.pack not in self._harmed:
                try:
                    self._repo.reader.load_at(place)
                    return True
                except _UNREADABLE:
                    continue
        return False


def _runs(blobs: list[PackedBlob]) -> Iterator[list[PackedBlob]]:
    """Those that are read together."""
    run: list[PackedBlob] = []
    for blob in blobs:
        if run and blob.offset + blob.length - run[0].offset > LARGEST_READ:
            yield run
            run = []
        run.append(blob)
    if run:
        yield run
