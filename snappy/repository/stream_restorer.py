"""A restore into something that takes files one after another, each from its beginning to its end."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import closing

from snappy import heap
from snappy.errors import Damaged
from snappy.repository.blob_shelf import BlobShelf
from snappy.repository.entries import Node, Problem, StreamSink
from snappy.repository.format import MIB, BlobLocation, BlobType
from snappy.repository.paths import ROOT, shown
from snappy.repository.progress import Cancelled, Problems, Progress, never
from snappy.repository.repo import Repository
from snappy.repository.restorer import RestoreResult
from snappy.repository.snapshot_walk import Kind, Selection, SnapshotWalk
from snappy.repository.snapshots import Snapshot
from snappy.repository.stored_file import StoredFile

KEPT_BYTES = 24 * MIB
"""Of blobs that came: what is being used, and what comes next."""


class StreamRestorer:
    """Restores from a repository, whose index must be loaded, into ``sink``, which the caller closes."""

    def __init__(
        self, repo: Repository, sink: StreamSink, *, progress: Progress | None = None, cancelled: Cancelled = never
    ) -> None:
        heap.tune(heap.FOR_PACKS)
        self._repo, self._sink, self._cancelled = repo, sink, cancelled
        self._progress = progress or Progress()
        self._shelf = BlobShelf(repo, KEPT_BYTES)
        self._warnings = Problems()
        self._files = self._folders = 0

    def restore(
        self, snapshot: Snapshot, *, include: Iterable[str] = (), exclude: Iterable[str] = (), subpath: bytes = ROOT
    ) -> RestoreResult:
        """Restore the files that the patterns select; all or nothing, as far as the sink can take back what it has.

        Raises :class:`Damaged` where anything of the selected cannot be read, and as
        :meth:`snappy.repository.restorer.Restorer.restore`.
        """
        selection, lost = Selection(include, exclude), Problems()
        if not selection and subpath == ROOT and snapshot.summary:
            summary = snapshot.summary
            self._progress.expect(files=summary.total_files_processed, size=summary.total_bytes_processed)
        for kind, path, node in SnapshotWalk(self._repo, selection, lost, self._cancelled).steps(snapshot, subpath):
            _raise_first(lost.kept)
            self._cancelled()
            if kind is Kind.ENTER:
                self._folders += 1
            elif kind is Kind.ITEM and node.type == "file":
                self._receive(path, node)
            elif kind is Kind.ITEM:
                self._warnings.add(path, f"a {node.type} cannot be restored there")
        _raise_first(lost.kept)
        self._remark(ROOT, self._sink.finish())
        return self._result()

    def _receive(self, path: bytes, node: Node) -> None:
        content = StoredFile(self._shelf, self._places(path, node))
        if content.size != node.size:
            self._warnings.add(path, f"the snapshot says {node.size} bytes, there are {content.size}")
        with closing(self._counted(content)) as pieces:
            self._remark(path, self._sink.receive(path, node, pieces))
        self._files += 1
        self._progress.add(files=1)

    def _counted(self, content: StoredFile) -> Generator[bytes, None, None]:
        with closing(content.stream()) as pieces:  # it waits for what it fetches, which no other thread may have to do
            for piece in pieces:
                self._cancelled()
                yield piece
                self._progress.add(size=len(piece))

    def _places(self, path: bytes, node: Node) -> list[BlobLocation]:
        places: list[BlobLocation] = []
        for blob in node.content or ():
            place = self._repo.location(BlobType.DATA, blob)
            if place is None:
                raise Damaged(f"{shown(path)} is lost: its blob {blob.hex()[:8]} is in no index")
            places.append(place)
        return places

    def _remark(self, path: bytes, remarks: list[str]) -> None:
        for remark in remarks:
            self._warnings.add(path, remark)

    def _result(self) -> RestoreResult:
        return RestoreResult(
            files=self._files,
            unmodified=0,
            directories=self._folders,
            bytes=self._progress.bytes_done,
            warnings=self._warnings.kept,
            warnings_total=self._warnings.total,
            errors=[],
            errors_total=0,
        )


def _raise_first(lost: list[Problem]) -> None:
    for problem in lost:
        raise Damaged(f"{shown(problem.path)} cannot be restored: {problem.message}")
