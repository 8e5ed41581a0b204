from __future__ import annotations

import json
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from snappy.errors import Damaged, NoSpace, RepositoryLocked, Unavailable
from snappy.repository.compression import Compressor
from snappy.repository.crypto import SealingKey
from snappy.repository.documents import Documents
from snappy.repository.format import BlobType, blob_id
from snappy.repository.index import MemoryIndex
from snappy.repository.pack_writer import NamedData, Options, PackWriter
from snappy.repository.reader import BlobReader
from snappy.repository.store import FileType, Store
from snappy.repository.writer import BlobWriter
from tests.support.engine import Interposed, memory_store

KEY = SealingKey.generate()
SMALL = Options(pack_size=10_000)


class Rig:
    """A writer with all it works with, and a clock that stands still."""

    def __init__(self, store: Store | None = None, options: Options = SMALL) -> None:
        self.store = store or memory_store()
        self.index = MemoryIndex()
        self.now = 0.0
        self.documents = Documents(self.store, KEY, Compressor())
        self.writer = BlobWriter(
            self.store,
            KEY,
            self.index,
            self.documents,
            options,
            clock=lambda: self.now,
        )
        self.reader = BlobReader(self.store, KEY, self.index)

    def names(self, kind: FileType) -> list[str]:
        return [name for name, _ in self.store.list(kind)]


def named(data: Iterable[bytes]) -> list[NamedData]:
    return [(blob_id(one), one) for one in data]


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.writer.close()


@pytest.mark.parametrize("kind", list(BlobType))
@pytest.mark.parametrize("data", [b"", b"x", b"compressible" * 1000, os.urandom(30_000)])
def test_what_was_saved_is_loaded(rig: Rig, kind: BlobType, data: bytes) -> None:
    saved = rig.writer.save(kind, data)
    assert saved.new
    assert saved.id == blob_id(data)
    rig.writer.flush()
    assert rig.reader.load(kind, saved.id) == data
    (location,) = rig.index.locations(kind, saved.id)
    assert location.length == saved.stored


def test_a_blob_is_stored_once(rig: Rig) -> None:
    first = rig.writer.save(BlobType.DATA, b"again")
    assert rig.writer.has(BlobType.DATA, first.id)
    assert rig.writer.save(BlobType.DATA, b"again") == (first.id, False, 0)
    rig.writer.flush()
    assert rig.writer.save(BlobType.DATA, b"again", first.id) == (first.id, False, 0)
    assert rig.writer.save(BlobType.TREE, b"again").new
    assert (rig.writer.stats.blobs_new, rig.writer.stats.blobs_known) == (2, 2)


def test_compression_is_used_where_it_gains(rig: Rig) -> None:
    rig.writer.save(BlobType.DATA, b"a" * 1000)
    rig.writer.save(BlobType.DATA, os.urandom(1000))
    rig.writer.flush()
    assert sorted(blob.uncompressed_length for blob in rig.index) == [0, 1000]


def test_without_compression_all_is_stored_as_it_is() -> None:
    rig = Rig(options=Options(compression=None))
    rig.writer.save(BlobType.TREE, b"a" * 1000)
    rig.writer.flush()
    assert [blob.uncompressed_length for blob in rig.index] == [0]
    rig.writer.close()


def test_kinds_do_not_share_a_pack(rig: Rig) -> None:
    for number in range(10):
        rig.writer.save(BlobType.DATA, bytes([number]) * 10)
        rig.writer.save(BlobType.TREE, bytes([number]) * 10)
    rig.writer.flush()
    kinds = {pack: {blob.kind for blob in rig.index if blob.pack == pack} for pack in rig.index.packs()}
    assert sorted(len(kinds[pack]) for pack in kinds) == [1, 1]


def test_packs_are_near_their_size(rig: Rig) -> None:
    for _ in range(200):
        rig.writer.save(BlobType.DATA, os.urandom(1000))
    rig.writer.flush()
    sizes = sorted(size for _, size in rig.store.list(FileType.PACK))
    assert len(sizes) > 15
    assert sizes[-1] < 13_000
    assert sizes[2] > 10_000
    assert rig.writer.stats.packs_written == len(sizes)
    assert rig.writer.stats.bytes_stored == sum(sizes)


def slow_writer(most: int) -> PackWriter:
    """One pack travels at a time, and takes a while."""
    store = memory_store(Interposed(lambda method, path: time.sleep(0.002) if method == "pipe_file" else None))
    return PackWriter(store, KEY, SMALL, lambda pack, apart: None, in_flight=1, most=most)


def test_no_more_packs_lie_in_memory_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    packs, seen = slow_writer(2), list[int]()
    take = packs._memory.take

    def counted(blob: int = 0) -> mmap.mmap:
        seen.append(1 + sum(map(len, packs._filling.values())) + packs._uploader.on_their_way)
        return take(blob)

    monkeypatch.setattr(packs._memory, "take", counted)
    for blob, data in named(os.urandom(1000) for _ in range(200)):
        packs.add(BlobType.DATA, data, blob)
    packs.flush()
    packs.close()
    assert len(seen) > 15
    assert max(seen) == 2


def test_each_kind_has_a_pack_however_little_memory_there_is() -> None:
    packs = slow_writer(1)
    for blob, data in named(os.urandom(1000) for _ in range(30)):
        packs.add(BlobType.DATA, data, blob)
        packs.add(BlobType.TREE, data, blob)
    packs.flush()
    assert len(packs._store.list(FileType.PACK)) == 6
    packs.close()


def test_order_packs_then_index() -> None:
    written: list[str] = []
    rig = Rig(memory_store(Interposed(lambda method, path: written.append(path) if method == "pipe_file" else None)))
    for _ in range(50):
        rig.writer.save(BlobType.DATA, os.urandom(1000))
    rig.writer.flush()
    rig.writer.close()
    kinds = [path.split("/")[2] for path in written]
    assert kinds[-1] == "index"
    assert set(kinds[:-1]) == {"data"}


def test_nothing_new_writes_nothing(rig: Rig) -> None:
    rig.writer.flush()
    rig.writer.flush()
    assert rig.names(FileType.INDEX) == rig.names(FileType.PACK) == []


def test_an_index_is_written_when_it_is_due(rig: Rig) -> None:
    uploaded = threading.Event()
    rig.store._fs = Interposed(lambda method, path: uploaded.set() if "/index/" in path else None)
    for _ in range(30):
        rig.writer.save(BlobType.DATA, os.urandom(1000))
    rig.writer._packs.wait()
    assert rig.names(FileType.INDEX) == []
    rig.now = SMALL.index_every
    rig.writer.save_index_if_due()
    assert uploaded.is_set()
    assert len(rig.names(FileType.INDEX)) == 1
    rig.writer.save_index_if_due()
    assert len(rig.names(FileType.INDEX)) == 1


def test_no_two_index_files_share_a_pack(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snappy.repository.writer.BLOBS_IN_A_FILE", 20)
    for _ in range(60):
        rig.writer.save(BlobType.DATA, os.urandom(1500))  # about seven in a pack
    rig.writer.flush()
    listed = [
        json.loads(rig.documents.load(FileType.INDEX, name, size)) for name, size in rig.store.list(FileType.INDEX)
    ]
    packs = [pack["id"] for file in listed for pack in file["packs"]]
    assert sorted(packs) == sorted(rig.names(FileType.PACK))
    assert len(listed) > 1
    assert sum(len(pack["blobs"]) for file in listed for pack in file["packs"]) == 60


def test_many_threads_save_the_same_blobs_once(rig: Rig) -> None:
    blobs = [os.urandom(500) for _ in range(100)]
    with ThreadPoolExecutor(8) as pool:
        saved = list(pool.map(lambda data: rig.writer.save(BlobType.DATA, data), blobs * 4))
    rig.writer.flush()
    assert sum(one.new for one in saved) == 100
    assert len(list(rig.index)) == 100
    for data in blobs:
        assert rig.reader.load(BlobType.DATA, blob_id(data)) == data


def test_a_failed_upload_stops_everything() -> None:
    def full(method: str, path: str) -> None:
        if method == "pipe_file" and "/data/" in path:
            raise OSError(28, "no space")

    rig = Rig(memory_store(Interposed(full)))
    saving = (rig.writer.save(BlobType.DATA, os.urandom(5000)) for _ in range(100))
    with pytest.raises(NoSpace):
        list(saving)
    for call in (rig.writer.flush, lambda: rig.writer.save(BlobType.TREE, b"x")):
        with pytest.raises(NoSpace):
            call()
    assert rig.names(FileType.INDEX) == []
    rig.writer.close()


@pytest.mark.parametrize("due", [True, False])
def test_a_failed_index_stops_everything(due: bool) -> None:
    def broken(method: str, path: str) -> None:
        if method == "pipe_file" and "/index/" in path:
            raise TimeoutError

    rig = Rig(memory_store(Interposed(broken)))
    rig.writer.save(BlobType.DATA, os.urandom(30_000))
    rig.writer._packs.wait()
    rig.now = SMALL.index_every if due else 0.0
    with pytest.raises(Unavailable):
        (rig.writer.save_index_if_due if due else rig.writer.flush)()
    with pytest.raises(Unavailable):
        rig.writer.flush()
    rig.writer.close()


def test_no_index_is_written_once_the_lock_is_lost(rig: Rig) -> None:
    def lost() -> None:
        raise RepositoryLocked

    rig.store.fence = lost
    rig.writer.save(BlobType.DATA, b"x")
    with pytest.raises(RepositoryLocked):
        rig.writer.flush()
    assert rig.names(FileType.INDEX) == []


def test_a_wrong_id_is_noticed_before_it_enters_a_pack(rig: Rig) -> None:
    with pytest.raises(Damaged):
        rig.writer.save(BlobType.DATA, b"data", bytes(32))
    with pytest.raises(Damaged):
        rig.writer.flush()
    assert rig.names(FileType.PACK) == []


def test_faulty_memory_is_noticed_before_it_enters_a_pack(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    seal_all = SealingKey.seal_all

    def faulty(key: SealingKey, messages: Sequence[bytes], random: Callable[[int], bytes] = os.urandom) -> list[bytes]:
        *whole, last = messages
        return seal_all(key, [*whole, bytes([last[0] ^ 4]) + last[1:]], random)

    monkeypatch.setattr(SealingKey, "seal_all", faulty)
    with pytest.raises(Damaged, match="changed while it was sealed"):
        rig.writer.save_all(BlobType.DATA, named(os.urandom(100) for _ in range(3)))
    assert rig.names(FileType.PACK) == []


def test_blobs_that_are_saved_together_are_stored_once_each(rig: Rig) -> None:
    known = rig.writer.save(BlobType.DATA, b"known")
    data = [b"new" * 100, b"known", b"", b"new" * 100]
    saved = rig.writer.save_all(BlobType.DATA, named(data))
    assert (saved.new, saved.plain) == (2, 300)
    assert rig.writer.save_all(BlobType.DATA, named(data)) == (0, 0, 0)
    rig.writer.flush()
    assert [rig.reader.load(BlobType.DATA, blob) for blob, _ in named(data)] == data
    assert sum(place.length for place in rig.index) == known.stored + saved.stored


def test_a_small_backup_is_one_pack(rig: Rig) -> None:
    for _ in range(9):
        rig.writer.save(BlobType.DATA, os.urandom(100))
    rig.writer.flush()
    assert len(rig.names(FileType.PACK)) == 1
