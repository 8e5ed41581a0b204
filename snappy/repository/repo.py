"""A repository: the one door through which archiver, restorer and services reach the engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hmac import compare_digest
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from snappy import heap, log
from snappy.errors import Damaged, NotFound, StorageError
from snappy.repository import configuration, locks, makers, snapshots
from snappy.repository.chunker import Chunker, Readable
from snappy.repository.compression import Compressor
from snappy.repository.configuration import Config
from snappy.repository.crypto import OVERHEAD
from snappy.repository.documents import Documents
from snappy.repository.entries import Node
from snappy.repository.format import BlobId, BlobLocation, BlobType, PackId, Random, parse_id
from snappy.repository.index import MemoryIndex
from snappy.repository.index_cache import IndexCache
from snappy.repository.index_loader import IndexLoader
from snappy.repository.index_table import Table
from snappy.repository.key_ring import KeyRing
from snappy.repository.keys import DEFAULT_COST, ScryptCost, StoredKey
from snappy.repository.link import Setup, WorkerLink
from snappy.repository.locks import Lock, LockOwner
from snappy.repository.pack import FinishedPack, PackedBlob, Unsealed
from snappy.repository.pack_writer import DEFAULT_OPTIONS, NamedData, Options
from snappy.repository.reader import BlobReader
from snappy.repository.snapshots import Snapshot
from snappy.repository.store import FileType, Store, no_fence
from snappy.repository.tree import decode_tree, encode_tree
from snappy.repository.writer import BlobWriter, SavedBlob, SavedBlobs, Stats

Work = Callable[[WorkerLink, Setup, Store], None]
"""What a worker process does from its start to its end."""

_HEADER_READERS = 4
_APART = b"snappy: set apart"
_STAMP_SIZE = 32

_LOG = log.get(__name__)


class Apart(NamedTuple):
    """What a writer set apart, and where it lies."""

    pack: FinishedPack
    data: bytes


class Unlisted(NamedTuple):
    """What no index file listed: so many packs, now adopted, and beside them what was set apart."""

    packs: int
    apart: list[Apart]


class Repository:
    """An open repository. Blobs are saved and loaded from any thread; the rest is for one thread at a time.

    The order that keeps it whole: blobs, then :meth:`flush`, then :meth:`save_snapshot`; and for a reader the other
    way round: list the snapshots before :meth:`load_index`.
    """

    def __init__(
        self, store: Store, config: Config, key: StoredKey, options: Options, random: Random, cache: Path | None
    ) -> None:
        self.store = store
        self.config = config
        self._random = random
        self.key_name = key.name
        self._master = key.master
        self.index = MemoryIndex()
        if not config.has_compression:
            options = Options(pack_size=options.pack_size, compression=None, index_every=options.index_every)
        self._options = options
        self._chunker = Chunker(config.chunker_seed)
        compressor = Compressor() if config.has_compression else None
        self.documents = Documents(store, key.master, compressor, random)
        self.cache = cache
        """The local folder in which index files are kept, if there is one."""
        known = None if cache is None else IndexCache(cache, config.id, key.master.stamp)
        self._loader = IndexLoader(store, self.documents, self.index, known)
        self.reader = BlobReader(store, key.master, self.index, renewal=self._loader)
        self._writer = BlobWriter(store, key.master, self.index, self.documents, options, random=random)

    @classmethod
    def init(
        cls,
        store: Store,
        password: str,
        *,
        options: Options = DEFAULT_OPTIONS,
        random: Random = os.urandom,
        cost: ScryptCost = DEFAULT_COST,
        cache: Path | None = None,
    ) -> Self:
        """Create a repository and open it. Raises :class:`snappy.errors.RepositoryExists` and StorageError."""
        configuration.create(store, password, random, cost)
        return cls.open(store, password, options=options, random=random, cache=cache)

    @classmethod
    def open(
        cls,
        store: Store,
        password: str,
        *,
        options: Options = DEFAULT_OPTIONS,
        random: Random = os.urandom,
        cache: Path | None = None,
    ) -> Self:
        """Open a repository of version 1 or 2 with any of its passwords. ``cache`` is a local folder in which what
        index files say is kept from one time to the next.

        Raises :class:`snappy.errors.NotARepository`, :class:`snappy.errors.WrongPassword`, other RepositoryErrors,
        and StorageError.
        """
        config, key = configuration.enter(store, password)
        return cls(store, config, key, options, random, cache)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def list_stored(self) -> None:
        """The work is given up: list what was uploaded of it, so that whoever does it anew finds that. Nothing more is
        written. Raises StorageError, and :class:`snappy.errors.RepositoryLocked` when our lock is lost."""
        self._writer.list_stored()

    def close(self) -> None:
        """End the upload threads; what was not flushed is dropped. May be called twice."""
        self._writer.close()

    @property
    def id(self) -> str:
        """64 hexadecimal digits that tell this repository from all others."""
        return self.config.id

    @property
    def stats(self) -> Stats:
        """What was written since it was opened."""
        return self._writer.stats

    def keys(self, cost: ScryptCost = DEFAULT_COST) -> KeyRing:
        """The keys that open it; ``cost`` is that of new ones."""
        return KeyRing(self.store, StoredKey(self.key_name, self._master), random=self._random, cost=cost)

    # Blobs

    def load_index(self) -> None:
        """Learn what is stored. Raises :class:`snappy.errors.Damaged` and StorageError."""
        self._loader.load()

    def learn_index(self, table: Table, names: Iterable[str]) -> None:
        """Know what the index files of these names list, as if :meth:`load_index` had read them."""
        self._loader.learn([table], names)

    def load_unlisted(self) -> Unlisted:
        """Learn what lies in packs that no index file lists, and list it with what is saved next: a writer that was
        lost stored them. What was set apart stays unlisted. After :meth:`load_index`. Raises StorageError."""
        known = self.index.packs()
        packs = [(parse_id(name), size) for name, size in self.store.list(FileType.PACK)]
        unlisted = [pack for pack in packs if pack[0] not in known]
        with ThreadPoolExecutor(_HEADER_READERS, thread_name_prefix="pack-header") as pool:
            found = list(pool.map(lambda pack: self._look_into(*pack), unlisted))
        adopted = [pack for pack in found if isinstance(pack, FinishedPack)]
        for pack in adopted:
            self._writer.adopt(pack)
        return Unlisted(len(adopted), [one for one in found if isinstance(one, Apart)])

    def save_apart(self, data: bytes) -> None:
        """Store what is only for a writer that goes on where this one is lost: it finds it with
        :meth:`load_unlisted`, and can trust that a holder of the key wrote it. No index file lists it before
        :meth:`flush`; nothing refers to it then, and a prune removes it. Blocks while uploads lag."""
        self._writer.save_apart(self._master.stamp(_APART, data) + data)

    def list_at_end(self, apart: Apart) -> None:
        """Let :meth:`flush` list what a lost writer set apart: nobody will need it any more."""
        self._writer.list_at_end(apart.pack)

    def has_blob(self, kind: BlobType, blob: BlobId) -> bool:
        """Whether the blob is stored, or was saved here and is on its way."""
        return self._writer.has(kind, blob)

    def has_blobs(self, kind: BlobType, blobs: Collection[BlobId]) -> bool:
        """The same of all of them."""
        return self._writer.has_all(kind, blobs)

    def stored_size(self, blob: BlobId) -> int | None:
        """The plain bytes of a data blob that is stored; None if it is not, or not yet."""
        found = self.index.location(BlobType.DATA, blob)
        return (found.uncompressed_length or found.length - OVERHEAD) if found else None

    def save_blob(self, kind: BlobType, data: bytes, blob: BlobId | None = None) -> SavedBlob:
        """Store a blob unless it is there; ``blob`` is its id if the caller knows it. Blocks while uploads lag.

        An upload that failed is raised here or by :meth:`flush`, and nothing is written after it.
        """
        return self._writer.save(kind, data, blob)

    def save_blobs(self, kind: BlobType, blobs: Sequence[NamedData]) -> SavedBlobs:
        """Store blobs, some megabytes at most, as :meth:`save_blob` does each, for less than one after another."""
        return self._writer.save_all(kind, blobs)

    def save_again(self, kind: BlobType, blobs: Sequence[NamedData]) -> None:
        """Store another copy of blobs, some megabytes at most together, for a pack that is to go."""
        self._writer.save_again(kind, blobs)

    def save_unsealed(self, kind: BlobType, blobs: Sequence[Unsealed]) -> None:
        """Store blobs of another repository as :meth:`save_blobs` does; what is compressed stays as it is."""
        self._writer.save_unsealed(kind, blobs)

    def save_unsealed_again(self, kind: BlobType, blobs: Sequence[Unsealed]) -> None:
        """As :meth:`save_again`; what is compressed stays as it is."""
        self._writer.save_unsealed_again(kind, blobs)

    def load_blob(self, kind: BlobType, blob: BlobId, ahead: Iterable[BlobId] = ()) -> bytes:
        """A blob's bytes, authenticated and hashed, from any copy that is whole; nothing is read ahead. Raises
        :class:`snappy.errors.Damaged` and StorageError."""
        return self.reader.load(kind, blob)

    def load_blobs(self, pack: PackId, entries: Iterable[BlobLocation]) -> Iterator[tuple[BlobLocation, bytes]]:
        """Blobs of one pack in few reads, by their offset. Those that are damaged everywhere are left out; after the
        last one :class:`snappy.errors.Damaged` is raised with them in ``details["blobs"]``."""
        return self.reader.load_many(pack, entries)

    def load_unsealed(self, pack: PackId, entries: Iterable[BlobLocation]) -> Iterator[tuple[BlobLocation, Unsealed]]:
        """As :meth:`load_blobs`, for :meth:`save_unsealed`: proven, and still compressed."""
        return self.reader.load_many_unsealed(pack, entries)

    def read_pack(self, pack: PackId, offset: int, length: int) -> bytes:
        """Bytes of a pack as they lie there, for :meth:`open_blob`. Raises StorageError."""
        return self.reader.read(pack, offset, length)

    def location(self, kind: BlobType, blob: BlobId) -> BlobLocation | None:
        """One place where the blob lies; None when it is unknown."""
        return self.index.location(kind, blob)

    def locate(self, kind: BlobType, blobs: Sequence[BlobId]) -> list[BlobLocation | None]:
        """The same of each of them."""
        return [self.index.location(kind, blob) for blob in blobs]

    def locations(self, kind: BlobType, blob: BlobId) -> list[BlobLocation]:
        """All places where the blob lies; none when it is unknown."""
        return self.index.locations(kind, blob)

    def pack_blobs(self, pack: PackId, size: int) -> list[PackedBlob]:
        """What the header of a pack of ``size`` bytes lists. Raises :class:`snappy.errors.Damaged`."""
        return self.reader.read_pack_header(pack, size)

    def open_blob(self, blob: BlobLocation | PackedBlob, sealed: memoryview) -> bytes:
        """The plain bytes of a blob that was read: authenticated, decompressed and hashed. Raises
        :class:`snappy.errors.Damaged`."""
        return self.reader.open(blob, sealed)

    def flush(self) -> None:
        """Upload and index all that was saved; then it is durable."""
        self._writer.flush()

    def chunks(self, file: Readable) -> Iterator[bytes]:
        """Cut a file into blobs, at places that only this repository would choose."""
        return self._chunker.chunks(file)

    # Worker processes

    def worker_setup(self, work: Work, niceness: int = 0) -> Setup | None:
        """What a worker process has to know to do ``work`` here; None where the store is only this process's to open.
        It holds the key."""
        recipe = self.store.recipe()
        if recipe is None:
            return None
        return Setup(
            work=makers.name_of(work),
            key=self._master.to_json(),
            chunker_seed=self.config.chunker_seed,
            pack_size=self._options.pack_size,
            compression=self._options.compression,
            store_maker=recipe.maker,
            store_arguments=recipe.arguments,
            niceness=niceness,
        )

    def leave_files(self) -> None:
        """Workers store the files from now on: what was saved of others is uploaded, and the memory that this needed
        given back."""
        self._writer.leave(BlobType.DATA)
        self._chunker.spare()
        heap.give_back()

    def claim_blobs(self, kind: BlobType, blobs: Iterable[tuple[BlobId, int]]) -> list[bool]:
        """Of each blob, given with its plain bytes, whether a worker has to store it: nobody did, or is about to."""
        return self._writer.claim(kind, blobs)

    def take_in(self, pack: FinishedPack) -> None:
        """Learn that a worker stored what it claimed, in this pack: the next index file lists it. Raises as
        :meth:`save_blob` does."""
        self._writer.take_in(pack)

    # Trees

    def load_tree(self, blob: BlobId) -> list[Node]:
        """The nodes of a directory. Raises :class:`snappy.errors.Damaged` and StorageError."""
        return decode_tree(self.load_blob(BlobType.TREE, blob))

    def save_tree(self, nodes: list[Node]) -> SavedBlob:
        """Store a directory; nodes in any order."""
        return self.save_blob(BlobType.TREE, encode_tree(nodes))

    # Snapshots

    def snapshots(self, *, strict: bool = False) -> list[Snapshot]:
        """All snapshots, oldest first; damaged ones are logged and left out, or with ``strict`` raised."""
        return snapshots.list_snapshots(self.store, self.documents, strict=strict)

    def find_snapshot(self, spec: str, **filters: Any) -> Snapshot:
        """The snapshot of that id, first letters of one, or ``latest`` (see :func:`snapshots.find_snapshot`).

        Raises :class:`snappy.errors.SnapshotNotFound`.
        """
        return snapshots.find_snapshot(self.store, self.documents, spec, **filters)

    def save_snapshot(self, snapshot: Snapshot) -> str:
        """Store a snapshot and return its id. Call :meth:`flush` first. Raises
        :class:`snappy.errors.RepositoryLocked` when our lock is lost."""
        return snapshots.save_snapshot(self.documents, snapshot)

    # Locks

    @contextmanager
    def lock(
        self,
        *,
        owner: LockOwner,
        exclusive: bool = False,
        settle: float = locks.SETTLE,
        settle_later: bool = False,
        confirm: locks.Confirm | None = None,
    ) -> Iterator[Lock]:
        """Hold a lock for the length of the context; it keeps itself fresh. No index file and no snapshot is written
        once it is lost. ``confirm`` says which locks of other jobs nobody holds any more; they are removed. Raises
        :class:`snappy.errors.RepositoryLocked`; with ``settle_later`` only the first writing may do so, which waits."""
        held = locks.hold(
            self.store,
            self.documents,
            owner,
            exclusive=exclusive,
            settle=settle,
            settle_later=settle_later,
            confirm=confirm,
        )
        with held as lock:
            self.store.fence, self._writer.may_write = lock.check_settled, lock.settled
            try:
                yield lock
            except (StorageError, Damaged):
                lock.settled()  # if another works here, that says more
                raise
            finally:
                self.store.fence, self._writer.may_write = no_fence, no_fence

    def _look_into(self, name: PackId, size: int) -> FinishedPack | Apart | None:
        try:
            pack = FinishedPack.of(name, size, self.pack_blobs(name, size))
            return self._set_apart(pack) or pack
        except (Damaged, NotFound) as error:
            _LOG.warning("a pack that no index lists cannot be read", pack=name.hex(), reason=error.message)
            return None

    def _set_apart(self, pack: FinishedPack) -> Apart | None:
        [first, *others] = pack.blobs()
        if others or first.kind is not BlobType.DATA:
            return None
        data = self.reader.load_at(first)
        stamp, rest = data[:_STAMP_SIZE], data[_STAMP_SIZE:]
        return Apart(pack, rest) if compare_digest(stamp, self._master.stamp(_APART, rest)) else None
