from __future__ import annotations

import os

import pytest

from snappy.errors import Damaged, Unavailable
from snappy.repository import reader
from snappy.repository.format import BlobLocation, BlobType, blob_id
from snappy.repository.repo import Repository
from snappy.repository.store import FileType
from tests.support.engine import Interposed, flip, memory_store, new_repository, reopened

BLOBS = [os.urandom(2000) + bytes([number]) for number in range(10)]


def filled() -> Repository:
    repository = new_repository(memory_store(Interposed(lambda method, path: None)))
    for data in BLOBS:
        repository.save_blob(BlobType.DATA, data)
    repository.flush()
    return repository


def locations(repository: Repository) -> list[BlobLocation]:
    return sorted(repository.index, key=lambda blob: blob.offset)


def path_of(location: BlobLocation) -> str:
    return f"data/{location.pack.hex()[:2]}/{location.pack.hex()}"


def copied(repository: Repository) -> Repository:
    """The same repository after another writer, who did not know of it, stored the same blobs once more."""
    ignorant = Repository.open(repository.store, "correct horse")
    for data in BLOBS:
        ignorant.save_blob(BlobType.DATA, data)
    ignorant.flush()
    return reopened(repository)


def test_an_unknown_blob() -> None:
    with pytest.raises(Damaged, match="in no index"):
        filled().load_blob(BlobType.DATA, bytes(32))


def test_a_damaged_blob_is_named() -> None:
    repository = filled()
    victim = locations(repository)[3]
    flip(repository.store, path_of(victim), victim.offset + 5)
    with pytest.raises(Damaged, match=victim.id.hex()[:8]):
        repository.load_blob(BlobType.DATA, victim.id)


def test_another_copy_is_taken_when_one_is_damaged() -> None:
    repository = copied(filled())
    name = blob_id(BLOBS[3])
    one, other = repository.locations(BlobType.DATA, name)
    assert one.pack != other.pack
    flip(repository.store, path_of(one), one.offset)
    assert repository.load_blob(BlobType.DATA, name) == BLOBS[3]
    repository.store.remove(FileType.PACK, one.pack.hex())
    assert repository.load_blob(BlobType.DATA, name) == BLOBS[3]
    flip(repository.store, path_of(other), other.offset)
    with pytest.raises(Damaged):
        repository.load_blob(BlobType.DATA, name)


def test_a_missing_pack_is_damage_and_a_silent_store_is_not() -> None:
    repository = filled()
    victim = locations(repository)[0]
    fs = repository.store._fs
    repository.store.remove(FileType.PACK, victim.pack.hex())
    with pytest.raises(Damaged):
        repository.load_blob(BlobType.DATA, victim.id)

    def silent(method: str, path: str) -> None:
        raise TimeoutError

    fs.before = silent
    with pytest.raises(Unavailable):
        repository.load_blob(BlobType.DATA, victim.id)
    with pytest.raises(Unavailable):
        list(repository.load_blobs(victim.pack, [victim]))


def test_neighbours_are_read_together() -> None:
    repository = filled()
    reads: list[str] = []
    repository.store._fs.before = lambda method, path: reads.append(method)
    wanted = [*locations(repository), locations(repository)[0]]
    found = list(repository.load_blobs(wanted[0].pack, reversed(wanted)))
    assert reads == ["cat_file"]
    assert [location for location, _ in found] == locations(repository)
    assert {data for _, data in found} == set(BLOBS)


def test_far_ones_are_read_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    repository = filled()
    reads: list[str] = []
    repository.store._fs.before = lambda method, path: reads.append(method)
    all_of_them = locations(repository)
    monkeypatch.setattr(reader, "LARGEST_GAP", 100)
    assert len(list(repository.load_blobs(all_of_them[0].pack, all_of_them[::3]))) == 4
    assert len(reads) == 4
    monkeypatch.setattr(repository.reader, "_largest_read", 5000)
    reads.clear()
    assert len(list(repository.load_blobs(all_of_them[0].pack, all_of_them))) == 10
    assert len(reads) == 5


def test_the_undamaged_are_given_before_the_damaged_are_told() -> None:
    repository = filled()
    victims = [locations(repository)[index] for index in (0, 5)]
    for victim in victims:
        flip(repository.store, path_of(victim), victim.offset + 40)
    found: list[BlobLocation] = []
    loading = (location for location, _ in repository.load_blobs(victims[0].pack, locations(repository)))
    with pytest.raises(Damaged) as caught:
        found.extend(loading)
    assert found == [blob for blob in locations(repository) if blob not in victims]
    assert caught.value.details["blobs"] == victims


def test_the_damaged_are_looked_for_in_other_packs() -> None:
    repository = copied(filled())
    wanted = [repository.locations(BlobType.DATA, blob_id(data))[0] for data in BLOBS]
    repository.store.remove(FileType.PACK, wanted[0].pack.hex())
    assert {data for _, data in repository.load_blobs(wanted[0].pack, wanted)} == set(BLOBS)


def test_an_index_that_lies_about_a_blob_is_noticed() -> None:
    repository = filled()
    true = locations(repository)
    lie = true[0]._replace(id=true[1].id)
    with pytest.raises(Damaged):
        repository.reader.open(lie, repository.store.load(FileType.PACK, lie.pack.hex(), lie.offset, lie.length))
