"""What repairs have in common: new index files come before old files go, and what may not be removed is named."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from snappy.errors import AccessDenied, NotFound, Unavailable
from snappy.repository.entries import Problem
from snappy.repository.findings import Finding, Findings, Kind
from snappy.repository.format import BlobLocation, PackId
from snappy.repository.index import BLOBS_IN_A_FILE, decode_index, encode_index
from snappy.repository.index_checker import IndexChecker
from snappy.repository.pack import PackedBlob
from snappy.repository.repo import Repository
from snappy.repository.store import FileType

_LEFT = {FileType.INDEX: Kind.INDEX_LEFT, FileType.PACK: Kind.PACK_LEFT, FileType.SNAPSHOT: Kind.SNAPSHOT_LEFT}


@dataclass(frozen=True)
class Repaired:
    """What a repair did, or with a dry run would do. ``findings`` are the first thousand things that it found wrong,
    ``finding_count`` all; ``lost`` what of files and directories is gone, the first thousand."""

    written: int
    """New index files, packs or snapshots, whatever was repaired."""
    removed: int
    """Files of the repository that went."""
    findings: list[Finding]
    finding_count: int
    lost: list[Problem] = field(default_factory=list)
    lost_count: int = 0


class Mender:
    """Writes and removes for one repair; with ``dry_run`` it only counts. For one thread."""

    def __init__(self, repo: Repository, findings: Findings, *, dry_run: bool) -> None:
        self._repo, self._findings, self.dry_run = repo, findings, dry_run
        self._unsaved: list[BlobLocation] = []
        self._saved: set[str] = set()
        self.indexes_written = self.removed = 0

    def list_pack(self, pack: PackId, blobs: Iterable[PackedBlob]) -> None:
        """Have a new index file list what lies in the pack."""
        self._unsaved += [blob.in_pack(pack) for blob in blobs]
        if len(self._unsaved) >= BLOBS_IN_A_FILE:
            self._save()

    def renew_index(self, index: IndexChecker, stale: set[PackId]) -> bool:
        """Save what is to be listed; then let no index file that was there list a pack of ``stale``, and remove those
        that cannot be read. Returns whether all could be removed. Raises StorageError."""
        old = [name for name, packs in index.files.items() if not stale.isdisjoint(packs)]
        listed = {pack for name, packs in index.files.items() if name not in old for pack in packs} | stale
        for name in old:
            for pack, blobs in self._packs(name).items():
                if pack not in listed:
                    listed.add(pack)
                    self.list_pack(pack, blobs)
        self._save()
        self._see_saved()
        gone = [self.remove(FileType.INDEX, name) for name in (*old, *index.unreadable)]
        return all(gone)

    def remove(self, kind: FileType, name: str) -> bool:
        """Whether the file is gone. Raises StorageError."""
        try:
            if not self.dry_run:
                self._repo.store.remove(kind, name)
        except NotFound:
            pass
        except AccessDenied as error:
            self._findings.add(_LEFT[kind], name, f"it is of no use any more, and stays: {error.message}")
            return False
        self.removed += 1
        return True

    def _packs(self, name: str) -> dict[PackId, list[PackedBlob]]:
        return decode_index(self._repo.documents.load(FileType.INDEX, name)).packs()

    def _save(self) -> None:
        if self._unsaved:
            self.indexes_written += 1
            if not self.dry_run:
                self._saved.add(self._repo.documents.save(FileType.INDEX, encode_index(self._unsaved)))
        self._unsaved = []

    def _see_saved(self) -> None:
        if self._saved and not self._saved <= {name for name, _ in self._repo.store.list(FileType.INDEX)}:
            raise Unavailable("the storage does not show the new index files; the old ones stay")
