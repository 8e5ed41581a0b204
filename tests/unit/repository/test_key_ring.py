"""Keys are listed, added, removed and changed; whatever dies, one that opens the repository stays."""

from __future__ import annotations

from typing import Any

import pytest

from snappy.errors import Damaged, KeyInUse, KeyNotFound, RepositoryLocked, Unavailable, WrongPassword
from snappy.repository.crypto import SealingKey
from snappy.repository.key_ring import KeyRing
from snappy.repository.keys import create_key
from snappy.repository.repo import Repository
from snappy.repository.store import FileType, Store
from tests.support.engine import CHEAP, PASSWORD, Interposed, memory_store, new_repository


def ring(store: Store, password: str = PASSWORD) -> KeyRing:
    return Repository.open(store, password).keys(CHEAP)


def names(store: Store) -> list[str]:
    return [name for name, _ in store.list(FileType.KEY)]


@pytest.fixture
def store() -> Store:
    made = memory_store()
    new_repository(made)
    return made


def test_what_is_listed(store: Store) -> None:
    first = ring(store).current
    added = ring(store).add("second", user="joe", host="moon")
    store.save(FileType.KEY, "ab" * 32, b"no key")
    listed = {key.name: key for key in ring(store)}
    assert set(listed) == {first, added}
    assert (listed[first].current, listed[added].current) == (True, False)
    assert (listed[added].file.username, listed[added].file.hostname) == ("joe", "moon")
    assert [key.name for key in ring(store, "second") if key.current] == [added]


def test_a_key_that_does_not_open_is_no_success(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(store: Store, password: str, master: SealingKey, **more: Any) -> Any:
        return create_key(store, password, SealingKey.generate(), cost=CHEAP)

    monkeypatch.setattr("snappy.repository.key_ring.create_key", elsewhere)
    with pytest.raises(Damaged):
        ring(store).change("second")
    Repository.open(store, PASSWORD).close()


def test_the_key_in_use_stays(store: Store) -> None:
    first = ring(store).current
    with pytest.raises(KeyInUse):
        ring(store).remove(first[:8])
    added = ring(store).add("second")
    assert ring(store, "second").remove(first[:8]) == first
    assert names(store) == [added]
    with pytest.raises(WrongPassword):
        Repository.open(store, PASSWORD)


def test_which_key_is_meant(store: Store) -> None:
    ring(store).add("second")
    with pytest.raises(KeyNotFound):
        ring(store).remove("")
    with pytest.raises(KeyNotFound):
        ring(store).remove("x")
    assert len(names(store)) == 2


def test_of_two_that_remove_each_others_key_one_stays(store: Store) -> None:
    added = ring(store).add("second")
    one, two = ring(store), ring(store, "second")
    one.remove(added)
    with pytest.raises(WrongPassword):
        two.remove(one.current)
    assert names(store) == [one.current]


def test_a_change(store: Store) -> None:
    keys = ring(store)
    old = keys.current
    new = keys.change("second")
    assert (names(store), keys.current) == ([new], new)
    assert new != old
    Repository.open(store, "second").close()
    with pytest.raises(WrongPassword):
        Repository.open(store, PASSWORD)


def test_to_the_same_password(store: Store) -> None:
    old = ring(store).current
    assert ring(store).change(PASSWORD) != old
    assert old not in names(store)
    Repository.open(store, PASSWORD).close()


def test_a_change_that_dies_leaves_both_and_is_gone_on_with() -> None:
    dead = True

    def dies(method: str, path: str) -> None:
        if dead and method == "rm_file":
            raise Unavailable("gone")

    store = memory_store(Interposed(dies))
    new_repository(store)
    with pytest.raises(Unavailable):
        ring(store).change("second")
    left = names(store)
    assert len(left) == 2
    Repository.open(store, "second").close()
    dead = False
    old = ring(store).current
    assert [ring(store).change("second")] == [name for name in left if name != old] == names(store)


def test_a_key_of_another_repository_is_no_key_of_this_one(store: Store) -> None:
    foreign = create_key(store, "second", SealingKey.generate(), cost=CHEAP).name
    assert ring(store).other("second") == ""
    new = ring(store).change("second")
    assert set(names(store)) == {foreign, new}
    Repository.open(store, "second").close()


def test_no_key_goes_without_the_lock(store: Store) -> None:
    def lost() -> None:
        raise RepositoryLocked("lost")

    keys = ring(store)
    store.fence = lost
    with pytest.raises(RepositoryLocked):
        keys.change("second")
    assert keys.current in names(store)
