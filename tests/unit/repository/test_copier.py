"""A copy holds what its source does, under another key; nothing is sent twice, whatever ends it in between."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from itertools import count

import pytest

from snappy.errors import Damaged, JobCancelled, StorageError
from snappy.repository.checker import Checker
from snappy.repository.copier import Copied, Copier, SnapshotForgotten
from snappy.repository.format import BlobType
from snappy.repository.portion import EVERYTHING
from snappy.repository.progress import Progress, never
from snappy.repository.repo import Repository
from snappy.repository.store import FileType, Store
from tests.support.engine import CHEAP, PASSWORD, Interposed, flip, memory_store
from tests.support.littered import SMALL_PACKS, back_up, contents, litter, opened, prune

TEXT = b"what is written twice and twice again " * 100


@pytest.fixture
def source() -> Store:
    """Snapshots of the numbers 1 and 3, and 4."""
    made = memory_store()
    litter(made, snapshots=4)
    with opened(made) as repository:
        back_up(repository, 4, TEXT)
    return made


@pytest.fixture
def target() -> Store:
    return empty(memory_store())


def empty(store: Store) -> Store:
    Repository.init(store, PASSWORD, cost=CHEAP).close()
    return store


def entered(store: Store) -> Repository:
    return Repository.open(store, PASSWORD, options=SMALL_PACKS)


def copy(
    source: Store,
    target: Store,
    *,
    chosen: slice = slice(None),
    cancelled: Callable[[], None] = never,
    resumes: bool = False,
) -> tuple[list[Copied], int]:
    """What became of each snapshot, and how many blobs were stored."""
    with entered(source) as one, entered(target) as other:
        copier = Copier(one, other, cancelled=cancelled, resumes=resumes)
        return copier.copy(one.snapshots()[chosen]), other.stats.blobs_new


def assert_sound(store: Store) -> None:
    with entered(store) as repository:
        assert Checker(repository).check(EVERYTHING).findings == []


def places(store: Store) -> set[tuple[BlobType, bytes, int, int]]:
    """Of each copy the blob's kind and id, and its bytes sealed and plain."""
    with opened(store) as repository:
        return {(place.kind, place.id, place.length, place.uncompressed_length) for place in repository.index}


def test_a_copy_is_as_its_source(source: Store, target: Store) -> None:
    done, blobs = copy(source, target)
    assert [copied.is_new for copied in done] == [True] * 3
    there, here = contents(source), contents(target)
    assert {copied.name: there[copied.snapshot.id] for copied in done} == here
    assert_sound(target)
    assert blobs == len(places(target)) < len(places(source))


def test_what_is_compressed_stays_as_it_is(source: Store, target: Store) -> None:
    copy(source, target)
    assert any(plain for kind, _, _, plain in places(target) if kind is BlobType.DATA)
    assert places(target) < places(source)


def test_a_second_copy_sends_nothing(source: Store, target: Store) -> None:
    first, _ = copy(source, target)
    before = {kind: target.list(kind) for kind in FileType}
    again, blobs = copy(source, target)
    assert blobs == 0
    assert [(copied.name, copied.is_new) for copied in again] == [(copied.name, False) for copied in first]
    assert {kind: target.list(kind) for kind in FileType} == before


def test_only_what_is_missing_is_sent(source: Store, target: Store) -> None:
    copy(source, target, chosen=slice(1))
    before = places(target)
    _, blobs = copy(source, target, chosen=slice(1, 2))
    more = places(target) - before
    assert 0 < blobs == len(more) < len(before)
    assert_sound(target)


def test_a_copy_of_a_copy_is_known_where_it_began(source: Store, target: Store) -> None:
    copy(source, target)
    third = empty(memory_store())
    done, _ = copy(target, third)
    assert {copied.snapshot.original for copied in done} == set(contents(source))
    back, blobs = copy(third, source)
    assert not any(copied.is_new for copied in back)
    assert blobs == 0


def test_one_whose_tags_were_changed_since_is_copied_again(source: Store, target: Store) -> None:
    copy(source, target, chosen=slice(1))
    with entered(target) as repository:
        [copied] = repository.snapshots()
        target.remove(FileType.SNAPSHOT, copied.id)
        copied.tags = ["changed"]
        repository.save_snapshot(copied)
    done, blobs = copy(source, target, chosen=slice(1))
    assert [one.is_new for one in done] == [True]
    assert blobs == 0


def test_a_snapshot_keeps_all_but_its_parent_to_the_letter(source: Store, target: Store) -> None:
    with entered(source) as repository:
        fields = json.loads(repository.documents.load(FileType.SNAPSHOT, repository.snapshots()[0].id))
        fields |= {"time": "2026-03-04T05:06:07.123456789+05:30", "parent": "ab" * 32, "unheard_of": {"of": [1]}}
        name = repository.documents.save(FileType.SNAPSHOT, json.dumps(fields).encode())
        with entered(target) as other:
            [copied] = Copier(repository, other).copy([repository.find_snapshot(name)])
            kept = json.loads(other.documents.load(FileType.SNAPSHOT, copied.name))
    del fields["parent"]
    assert kept == {**fields, "original": name}


def test_progress_ends_where_it_said(source: Store, target: Store) -> None:
    progress = Progress()
    with entered(source) as one, entered(target) as other:
        Copier(one, other, progress=progress).copy(one.snapshots())
    assert (progress.files_done, progress.bytes_done) == (progress.files_total, progress.bytes_total)
    assert progress.bytes_done == sum(length for _, _, length, _ in places(target))


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def damage(store: Store, copies: int) -> None:
    """Of every file's blobs that the index lists so often."""
    with opened(store) as repository:
        for place in list(repository.index):
            found = repository.locations(place.kind, place.id)
            if place.kind is BlobType.DATA and place == found[0] and len(found) == copies:
                flip(store, f"data/{place.pack.hex()[:2]}/{place.pack.hex()}", place.offset + place.length // 2)


def test_a_damaged_blob_is_taken_from_another_pack(source: Store, target: Store) -> None:
    there = contents(source)
    damage(source, copies=2)
    done, _ = copy(source, target)
    assert {copied.name: there[copied.snapshot.id] for copied in done} == contents(target)
    assert_sound(target)


def test_a_blob_that_is_lost_leaves_no_snapshot(source: Store, target: Store) -> None:
    damage(source, copies=1)
    with pytest.raises(Damaged):
        copy(source, target)
    assert target.list(FileType.SNAPSHOT) == []


def amid_packs(store: Store, work: Callable[[], object]) -> Store:
    """The same files; ``work`` is done when the first blob is read, but for those of trees."""
    waiting = [work]

    def before(method: str, path: str) -> None:
        if method == "cat_file" and "/data/" in path and waiting and carrying():
            waiting.pop()()

    watched = Interposed(before)
    watched.store = store._fs.store
    watched.pseudo_dirs = store._fs.pseudo_dirs
    return memory_store(watched)


def carrying() -> bool:
    return threading.current_thread().name.startswith("carry")


def test_a_prune_of_the_source_meanwhile_costs_the_copy_nothing(source: Store, target: Store) -> None:
    there = contents(source)
    packs = {name for name, _ in source.list(FileType.PACK)}
    done, _ = copy(amid_packs(source, lambda: prune(source, max_unused="0")), target)
    assert packs - {name for name, _ in source.list(FileType.PACK)}
    assert {copied.name: there[copied.snapshot.id] for copied in done} == contents(target)
    assert_sound(target)


def test_a_snapshot_that_is_forgotten_and_pruned_meanwhile_is_named(source: Store, target: Store) -> None:
    """What its end took away is no damage, and the next attempt copies the others."""
    first, *others = contents(source)

    def forget() -> None:
        source.remove(FileType.SNAPSHOT, first)
        prune(source, max_unused="0")

    with pytest.raises(SnapshotForgotten, match=first[:8]) as caught:
        copy(amid_packs(source, forget), target)
    assert caught.value.retryable
    done, _ = copy(source, target, resumes=True)
    assert [copied.snapshot.id for copied in done] == others
    assert_sound(target)


def test_a_cancelled_copy_is_gone_on_with(source: Store, target: Store) -> None:
    _, whole = copy(source, empty(memory_store()))
    asked = count()

    def cancelled() -> None:
        if next(asked) > 60:
            raise JobCancelled()

    with entered(source) as one, entered(target) as other:
        with pytest.raises(JobCancelled):
            Copier(one, other, cancelled=cancelled).copy(one.snapshots())
        other.list_stored()
    _, blobs = copy(source, target)
    assert 0 < blobs < whole
    assert_sound(target)


@pytest.mark.parametrize("writes", [2, 5, 9])
def test_a_lost_copy_is_gone_on_with(source: Store, writes: int) -> None:
    """The first two writes are those of the new repository's key and configuration."""
    done = count()

    def before(method: str, path: str) -> None:
        if method == "pipe_file" and next(done) >= writes + 2:
            raise OSError("gone")

    files = Interposed(before)
    target = empty(memory_store(files))
    with pytest.raises(StorageError):
        copy(source, target)
    files.before = lambda method, path: None
    stored = len(target.list(FileType.PACK))
    again, blobs = copy(source, target, resumes=True)
    assert blobs < len(places(target)) if stored else blobs
    assert {copied.name for copied in again} == set(contents(target))
    assert list(contents(source).values()) == list(contents(target).values())
    assert_sound(target)
