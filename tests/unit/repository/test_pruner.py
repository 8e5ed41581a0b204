"""A prune beside others: whatever they do between its plan and its deletion, no snapshot loses anything."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from snappy.errors import AccessDenied, Damaged, JobCancelled, RepositoryLocked, StorageError
from snappy.repository.checker import Checker
from snappy.repository.findings import Kind
from snappy.repository.format import BlobType
from snappy.repository.index import decode_index, encode_index
from snappy.repository.locks import LockJob, LockOwner
from snappy.repository.portion import EVERYTHING
from snappy.repository.prune_plan import PruneOptions
from snappy.repository.pruner import Pruner, PruneResult
from snappy.repository.repo import Repository
from snappy.repository.store import FileType, Store
from tests.support.engine import PASSWORD, flip, memory_store
from tests.support.littered import SMALL_PACKS, back_up, contents, held, litter, opened, prune
from tests.support.snapshots import save_snapshot

OTHER = LockOwner(hostname="elsewhere", job=LockJob("job-2", 1))
ALL = PruneOptions(max_unused="0")


@pytest.fixture
def store() -> Store:
    made = memory_store()
    litter(made, snapshots=4)
    return made


def names(store: Store, kind: FileType) -> set[str]:
    return {name for name, _ in store.list(kind)}


def findings(store: Store) -> list[Kind]:
    with Repository.open(store, PASSWORD) as repository:
        return [found.kind for found in Checker(repository).check(EVERYTHING).findings]


def prune_with(store: Store, meanwhile: Callable[[], object], options: PruneOptions = ALL) -> PruneResult:
    """A prune; ``meanwhile`` happens when it has let go of its shared lock."""

    @contextmanager
    def interrupted(exclusive: bool) -> Iterator[None]:
        if exclusive:
            meanwhile()
        with held(repository)(exclusive):
            yield

    with Repository.open(store, PASSWORD, options=SMALL_PACKS) as repository:
        return Pruner(repository, options, patience=0).prune(interrupted)


# ---- alone -----------------------------------------------------------------------------------------------------------


def test_it_deletes_what_nobody_uses(store: Store) -> None:
    before = contents(store)
    done = prune(store, max_unused="0")
    assert contents(store) == before
    assert findings(store) == []
    assert done.packs_deleted == done.stats.packfiles.remove_total + done.stats.packfiles.repack > 4
    with opened(store) as repository:
        stored = [(place.kind, place.id) for place in repository.index]
        assert len(stored) == len(set(stored)) == done.stats.blobs.used
    assert prune(store, max_unused="0").packs_deleted == 0


def test_a_dry_run_touches_nothing(store: Store) -> None:
    before = {kind: names(store, kind) for kind in FileType}
    done = prune(store, dry_run=True)
    assert done.stats.packfiles.remove_total
    assert (done.packs_deleted, {kind: names(store, kind) for kind in FileType}) == (0, before)


def test_where_nothing_may_be_deleted_nothing_is_stored_either(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Store, kind: FileType, name: str) -> None:
        if kind is not FileType.LOCK:
            raise AccessDenied
        remove(self, kind, name)

    remove = Store.remove
    packs = names(store, FileType.PACK)
    monkeypatch.setattr(Store, "remove", refuse)
    with pytest.raises(AccessDenied):
        prune(store, max_unused="0")
    assert names(store, FileType.PACK) == packs


def test_a_pack_that_two_index_files_list_is_listed_once(store: Store) -> None:
    [(name, _), *_] = store.list(FileType.INDEX)
    with opened(store) as repository:
        packs = decode_index(repository.documents.load(FileType.INDEX, name)).packs()
        pack, blobs = next(iter(packs.items()))
        repository.documents.save(FileType.INDEX, encode_index(blob.in_pack(pack) for blob in blobs))
    assert Kind.PACK_REPEATED in findings(store)
    prune(store, max_unused="unlimited")
    assert findings(store) == []


def test_cancelled_anywhere_it_loses_nothing(store: Store) -> None:
    before = contents(store)
    left = 0

    def cancelled() -> None:
        nonlocal left
        left -= 1
        if not left:
            raise JobCancelled

    for after in range(1, 400, 7):
        left = after
        with Repository.open(store, PASSWORD, options=SMALL_PACKS) as repository:
            try:
                Pruner(repository, ALL, cancelled=cancelled).prune(held(repository))
            except JobCancelled:
                continue
            break
    assert 7 < after < 399
    assert contents(store) == before
    assert findings(store) == []


# ---- damage ----------------------------------------------------------------------------------------------------------


def spoil_snapshot(store: Store) -> None:
    flip(store, f"snapshots/{min(names(store, FileType.SNAPSHOT))}", 40)


def lose_tree(store: Store) -> None:
    with opened(store) as repository:
        save_snapshot(repository, random.Random(1).randbytes(32))


def spoil_tree(store: Store) -> None:
    with opened(store) as repository:
        saved = repository.save_blob(BlobType.TREE, b'{"nodes":[{"name":"x","type":"dir"}]}')
        repository.flush()
        save_snapshot(repository, saved.id)


def lose_pack(store: Store) -> None:
    with opened(store) as repository:
        root = repository.snapshots()[0].tree_id
        file = repository.load_tree(repository.load_tree(root)[1].subtree or b"")[0]
        for place in repository.locations(BlobType.DATA, (file.content or [b""])[0]):
            store.remove(FileType.PACK, place.pack.hex())


def spoil_index(store: Store) -> None:
    flip(store, f"index/{min(names(store, FileType.INDEX))}", 40)


def lose_index(store: Store) -> None:
    for name in names(store, FileType.INDEX):
        store.remove(FileType.INDEX, name)


HARM = [spoil_snapshot, lose_tree, spoil_tree, lose_pack, spoil_index, lose_index]


@pytest.mark.parametrize(("harm", "amid"), [*((one, False) for one in HARM), *((one, True) for one in HARM[1:4])])
def test_what_cannot_be_read_keeps_everything(store: Store, harm: Callable[[Store], None], amid: bool) -> None:
    before: set[str] = set()

    def meanwhile() -> None:
        if amid:
            harm(store)
            before.update(names(store, FileType.PACK))

    if not amid:
        harm(store)
        before = names(store, FileType.PACK)
    with pytest.raises((Damaged, StorageError)):
        prune_with(store, meanwhile)
    assert names(store, FileType.PACK) == before
    assert names(store, FileType.LOCK) == set()


def test_a_missing_pack_that_nobody_needs_leaves_the_index(store: Store) -> None:
    with opened(store) as repository:
        back_up(repository, 77)
        own = {place.pack for place in repository.index}
        newest = repository.snapshots()[-1]
        lost = {place.pack for place in repository.locations(BlobType.TREE, newest.tree_id)}
    assert lost <= own
    store.remove(FileType.SNAPSHOT, newest.id)
    for pack in lost:
        store.remove(FileType.PACK, pack.hex())
    assert Kind.PACK_MISSING in findings(store)
    prune(store)
    assert findings(store) == []


# ---- beside others ---------------------------------------------------------------------------------------------------


def test_a_backup_that_came_to_use_what_was_to_be_deleted_keeps_it(store: Store) -> None:
    """It loaded the index before, and ended before the exclusive lock."""
    running = opened(store)
    prune_with(store, lambda: back_up(running, 0))  # the first snapshot was forgotten: its blobs are unused
    with running:
        assert len(contents(store)) == 3
        assert findings(store) == []
        assert running.stats.packs_written <= 1, "it found nearly all of it stored"


def test_what_a_backup_listed_meanwhile_stays(store: Store) -> None:
    running = opened(store)
    running.save_blob(BlobType.DATA, random.Random(9).randbytes(40_000))
    running._writer._packs.flush()
    prune_with(store, lambda: back_up(running, 99))
    with running:
        assert len(contents(store)) == 3
        assert findings(store) == []


def test_who_reads_without_a_lock_finds_what_was_stored_anew(store: Store) -> None:
    """A restore that may only read leaves none."""
    with opened(store) as reading:
        snapshots = reading.snapshots()
        moved = prune(store, max_unused="0").stats.packfiles.repack
        listed: list[FileType] = []
        list_files = store.list
        store.list = lambda kind: listed.append(kind) or list_files(kind)  # type: ignore[method-assign,func-returns-value]
        for snapshot in snapshots:
            for folder in reading.load_tree(snapshot.tree_id):
                [file] = reading.load_tree(folder.subtree or b"")
                assert len(reading.load_blob(BlobType.DATA, (file.content or [b""])[0])) == file.size
    assert moved
    assert listed == [FileType.INDEX], "once is enough"


def test_who_reads_what_is_lost_does_not_look_for_each_of_it(store: Store) -> None:
    with opened(store) as reading:
        for name in names(store, FileType.PACK):
            store.remove(FileType.PACK, name)
        store.list = lambda kind: pytest.fail("twice") if listed else listed.append(kind) or []  # type: ignore
        listed: list[FileType] = []
        for place in list(reading.index)[:20]:
            with pytest.raises(Damaged):
                reading.load_blob(place.kind, place.id)
    assert listed == [FileType.INDEX]


@pytest.mark.parametrize("options", [ALL, PruneOptions()])
def test_another_prune_between(store: Store, options: PruneOptions) -> None:
    before = contents(store)
    prune_with(store, lambda: prune(store, max_unused="0", owner=OTHER), options)
    assert contents(store) == before
    assert findings(store) == []


def test_a_snapshot_forgotten_meanwhile(store: Store) -> None:
    prune_with(store, lambda: store.remove(FileType.SNAPSHOT, min(names(store, FileType.SNAPSHOT))))
    assert len(contents(store)) == 1
    assert findings(store) == []


def test_random_company(store: Store) -> None:
    """Whatever others do before the exclusive lock is had: backups that began before the prune end, and then come more
    backups, prunes and snapshots that are forgotten."""
    chance = random.Random(3)

    def back_up_anew() -> None:
        with opened(store) as repository:
            back_up(repository, chance.randrange(100, 130))

    def forget() -> None:
        snapshots = sorted(names(store, FileType.SNAPSHOT))
        store.remove(FileType.SNAPSHOT, chance.choice(snapshots[1:]))

    def prune_too() -> None:
        prune(store, owner=OTHER, max_unused=chance.choice(["0", "30%", "unlimited"]))

    for number in range(100, 125):
        running = [opened(store) for _ in range(chance.randrange(1, 3))]

        def meanwhile(number: int = number, running: list[Repository] = running) -> None:
            for one in running:
                with one:
                    back_up(one, number - chance.randrange(3))
            for doing in chance.choices([back_up_anew, forget, prune_too], k=3):
                doing()

        prune_with(store, meanwhile, PruneOptions(max_unused=chance.choice(["0", "20%"])))
        assert contents(store)
        assert [kind for kind in findings(store) if kind.value.damage] == []


# ---- locks -----------------------------------------------------------------------------------------------------------


def test_it_plans_and_stores_beside_others_and_waits_for_them_to_delete(store: Store) -> None:
    with opened(store) as running, Repository.open(store, PASSWORD, options=SMALL_PACKS) as repository:
        other = running.lock(owner=OTHER, settle=0)
        other.__enter__()
        pruner = Pruner(repository, ALL, patience=60, pause=0.01)
        waiting = threading.Event()
        locks = held(repository)

        def noticed(exclusive: bool) -> Any:
            if exclusive:
                waiting.set()
            return locks(exclusive)

        thread = threading.Thread(target=pruner.prune, args=(noticed,))
        thread.start()
        assert waiting.wait(60)
        before = names(store, FileType.PACK)
        with opened(store) as third, third.lock(owner=OTHER, settle=0):
            back_up(third, 50)  # nobody is kept from working by a prune that waits
        assert before <= names(store, FileType.PACK)
        other.__exit__(None, None, None)
        thread.join(60)
        assert not thread.is_alive()
    assert not before <= names(store, FileType.PACK)
    assert findings(store) == []


def test_its_patience_ends(store: Store) -> None:
    packs = names(store, FileType.PACK)
    with opened(store) as running, running.lock(owner=OTHER, settle=0), pytest.raises(RepositoryLocked):
        prune(store)
    assert packs <= names(store, FileType.PACK)


def test_who_lost_the_lock_deletes_nothing(store: Store) -> None:
    packs = names(store, FileType.PACK)

    def lost() -> None:
        raise RepositoryLocked

    @contextmanager
    def losing(exclusive: bool) -> Iterator[None]:
        with held(repository)(exclusive):
            repository.store.fence = lost if exclusive else repository.store.fence
            yield

    with Repository.open(store, PASSWORD, options=SMALL_PACKS) as repository, pytest.raises(RepositoryLocked):
        Pruner(repository, ALL, patience=0).prune(losing)
    assert packs <= names(store, FileType.PACK)
