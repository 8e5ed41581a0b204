"""A check: is all there that the snapshots need, and, as far as it is asked to read, is it what was written?

Snapshots are listed before the index is read, and the index before packs are listed: what a backup writes meanwhile,
in the order packs, index, snapshot, is never taken for missing. Nothing may be deleted meanwhile: hold a lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from snappy.errors import Corrupt, Damaged, NotFound, WrongPassword
from snappy.repository.findings import Finding, Findings, Kind
from snappy.repository.format import BlobId, PackId, parse_id
from snappy.repository.index_checker import IndexChecker, Listing
from snappy.repository.keys import find_keys, read_key
from snappy.repository.pack_checker import PackChecker
from snappy.repository.pack_proof import CheckedPack, wrong_size
from snappy.repository.portion import Portion
from snappy.repository.progress import Cancelled, Progress, never
from snappy.repository.repo import Repository
from snappy.repository.snapshots import load_snapshot
from snappy.repository.store import FileType, Store
from snappy.repository.team import NO_WORKERS, Workers
from snappy.repository.tree_checker import TreeChecker


@dataclass(frozen=True)
class CheckResult:
    """What was looked at, and what was found: ``damage`` and ``hints`` count all, ``findings`` are the first
    thousand, damage before hints."""

    snapshots: int
    trees: int
    packs: int
    packs_read: int
    bytes_read: int
    damage: int
    hints: int
    findings: list[Finding]

    def failure(self) -> Damaged | None:
        """The error that the check should end with, if anything is damaged."""
        if not self.damage:
            return None
        first = self.findings[0]
        about, name = first.kind.value.about, first.id[:8]
        return Damaged(
            f"the repository is damaged, findings: {self.damage}; the first: {about} {name}: {first.message}",
            hint=first.kind.value.remedy,
        )


class Checker:
    """Checks an open repository whose index nobody has loaded. For one check, from one thread; where there is much to
    read, ``workers`` read it."""

    def __init__(
        self,
        repo: Repository,
        *,
        progress: Progress | None = None,
        cancelled: Cancelled = never,
        workers: Workers = NO_WORKERS,
    ) -> None:
        self._repo, self._cancelled, self._workers = repo, cancelled, workers
        self._progress = progress or Progress()
        self._findings = Findings()

    def check(self, portion: Portion | None = None) -> CheckResult:
        """Check the structure, and read ``portion`` of the packs. Raises StorageError and what ``cancelled``
        raises; damage is never raised, but a finding."""
        _check_keys(self._repo.store, self._findings)
        roots = self._roots()
        index = IndexChecker(self._repo, self._findings, self._cancelled)
        index.check()
        present = self._present(index)
        chosen = portion.choose({pack: size for pack, (size, _) in present.items()}) if portion else []
        read = [CheckedPack(pack, *present[pack]) for pack in chosen]
        self._compare_sizes(present, unread=present.keys() - chosen)
        size = sum(pack.size for pack in read)
        self._progress.expect(files=len(read), size=size)
        with PackChecker(self._repo, self._findings, self._progress, self._cancelled, self._workers) as packs:
            packs.begin(read)
            trees = TreeChecker(self._repo, self._findings, packs.check)
            if index.is_whole:  # else most of what is missing would only be unknown
                trees.check(roots.values())
            packs.finish()
        return CheckResult(
            snapshots=len(roots),
            trees=trees.trees,
            packs=len(index.listings),
            packs_read=len(read),
            bytes_read=size,
            damage=self._findings.damage,
            hints=self._findings.hints,
            findings=self._findings.kept(),
        )

    def _roots(self) -> dict[str, BlobId]:
        """The root tree of each snapshot that can be read."""
        found: dict[str, BlobId] = {}
        for name, size in self._repo.store.list(FileType.SNAPSHOT):
            self._cancelled()
            try:
                found[name] = load_snapshot(self._repo.documents, name, size).tree_id
            except NotFound:
                continue
            except (Damaged, Corrupt) as error:
                self._findings.add(Kind.SNAPSHOT_DAMAGED, name, error.message)
        return found

    def _present(self, index: IndexChecker) -> dict[PackId, tuple[int, Listing | None]]:
        """The packs that the index lists and that are there, with their sizes."""
        sizes = {parse_id(name): size for name, size in self._repo.store.list(FileType.PACK)}
        present: dict[PackId, tuple[int, Listing | None]] = {}
        for pack, listing in index.listings.items():
            size = sizes.pop(pack, None)
            if size is None:
                self._findings.add(Kind.PACK_MISSING, pack, "the index lists it, and it is not there")
            else:
                present[pack] = size, listing
        for pack in sizes if index.is_whole else ():
            self._findings.add(Kind.PACK_UNLISTED, pack, "no index file lists it: an unfinished backup left it")
        return present

    def _compare_sizes(self, present: Mapping[PackId, tuple[int, Listing | None]], unread: Iterable[PackId]) -> None:
        """Of packs that are read it is known whether they or the index are wrong."""
        for pack in unread:
            size, listing = present[pack]
            if listing and size != listing.size:
                self._findings.add(Kind.PACK_SIZE, pack, wrong_size(size, listing))


def what_bars(store: Store, password: str) -> list[Finding]:
    """What is damaged of the two that open a repository, where one of them is: keys or its configuration. Raises
    StorageError."""
    findings = Findings()
    _check_keys(store, findings)
    try:
        find_keys(store, password)
        findings.add(Kind.CONFIG_DAMAGED, "config", "a key opens with this password, and not the configuration")
    except (WrongPassword, Damaged):
        pass
    return findings.kept()


def _check_keys(store: Store, findings: Findings) -> None:
    """Those that others open the repository with, too."""
    for name, size in store.list(FileType.KEY):
        try:
            read_key(store, name, size)
        except NotFound:
            continue  # removed since it was listed
        except (Damaged, Corrupt) as error:
            findings.add(Kind.KEY_DAMAGED, name, error.message)
