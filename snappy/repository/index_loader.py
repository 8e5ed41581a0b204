"""How an index gets into memory: what the local cache knows of it, then the index files that are new."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from snappy import heap, log
from snappy.errors import Damaged, StorageError
from snappy.repository.documents import Documents
from snappy.repository.index import IndexContent, MemoryIndex, decode_index
from snappy.repository.index_cache import IndexCache
from snappy.repository.index_table import GatheredTable, Table
from snappy.repository.store import File, Files, FileType, Store

_READERS = 2
"""Index files that are under way at once; each is some megabytes. To take one in is as long as to read another."""
RENEWED_EVERY = 10.0
"""Seconds at least: where many blobs are lost, not each has the index files listed."""

_LOG = log.get(__name__)


class IndexLoader:
    """Fills ``index`` from the index files in ``store``. Without ``cache`` all of them are read."""

    def __init__(self, store: Store, documents: Documents, index: MemoryIndex, cache: IndexCache | None) -> None:
        self._store = store
        self._documents = documents
        self._index = index
        self._cache = cache
        self._loaded: set[str] = set()
        self._renewing = threading.Lock()
        self._renewed_at = -math.inf
        self.version = 0
        """How often something new was learnt by :meth:`renew`."""

    def renew(self, version: int) -> bool:
        """A blob could not be read: whether more is known than at ``version``, perhaps because this looks for what is
        new. A prune may have stored the blob anew, and the reader holds no lock. Any thread may call."""
        with self._renewing:
            due = time.monotonic() - self._renewed_at >= RENEWED_EVERY
            if self._loaded and version == self.version and due:
                self._renew()
            return version != self.version

    def _renew(self) -> None:
        known = len(self._loaded)
        try:
            self.load()
        except (Damaged, StorageError) as error:
            _LOG.warning("the index could not be read again", reason=error.message)
        self.version += len(self._loaded) > known
        self._renewed_at = time.monotonic()

    def load(self) -> None:
        """Learn what is stored; when called again, what is new. Raises :class:`snappy.errors.Damaged` and
        StorageError."""
        listed = [file for file in self._store.list(FileType.INDEX) if file[0] not in self._loaded]
        names = {name for name, _ in listed}
        self._index.join(self._tables(listed, names))
        self._loaded |= names
        heap.give_back()

    def learn(self, tables: Sequence[Table], names: Iterable[str]) -> None:
        """Take in what somebody else read of the files of these names."""
        self._index.join(tables)
        self._loaded.update(names)

    def _tables(self, listed: Files, names: set[str]) -> Sequence[Table]:
        cache = None if self._loaded else self._cache  # it stands for all of the files, not for those that are new
        cached = cache.open(names) if cache else []
        new = names.difference(*(one.files for one in cached))
        table, superseded = self._read([file for file in listed if file[0] in new])
        if superseded & names:  # only repositories of old restics have such files; what they list may be gone
            return [self._read([file for file in listed if file[0] not in superseded])[0].settled()]
        if cache and new:
            return cache.extend(cached, new, table)
        return [*(one.table for one in cached), table.settled()]

    def _read(self, files: Files) -> tuple[GatheredTable, set[str]]:
        """What the files list, and which files they stand for."""
        table = GatheredTable()
        superseded: set[str] = set()
        for content in self._contents_of(files):
            table.add(content.rows(table.pack_number))
            superseded |= content.supersedes
            del content  # the next one is as large
        return table, superseded

    def _contents_of(self, files: Files) -> Iterator[IndexContent]:
        """In their order; a few at a time are read ahead."""
        with ThreadPoolExecutor(_READERS, thread_name_prefix="index") as pool:
            coming: deque[Future[bytes]] = deque()
            for file in files:
                coming.append(pool.submit(self._document, file))
                if len(coming) > _READERS:
                    yield decode_index(coming.popleft().result())
            while coming:
                yield decode_index(coming.popleft().result())

    def _document(self, file: File) -> bytes:
        name, size = file
        return self._documents.load(FileType.INDEX, name, size)
