from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from snappy.errors import (
    AlreadyExists,
    BucketMissing,
    Damaged,
    NotARepository,
    RepositoryError,
    RepositoryExists,
    Unavailable,
    WrongPassword,
)
from snappy.repository import configuration
from snappy.repository.configuration import Config, create, enter
from snappy.repository.crypto import SealingKey
from snappy.repository.format import encode_json
from snappy.repository.keys import create_key, find_keys
from snappy.repository.polynomial import is_irreducible
from snappy.repository.store import FileType, Store
from tests.support.engine import CHEAP, PASSWORD, Interposed, memory_store


def make(store: Store, password: str = PASSWORD) -> None:
    create(store, password, cost=CHEAP)


def with_config(config: Config) -> Store:
    """A repository with that configuration, whatever it says."""
    store = memory_store()
    key = create_key(store, PASSWORD, SealingKey.generate(), cost=CHEAP)
    store.save(FileType.CONFIG, "config", key.master.seal(encode_json(config)))
    return store


def test_a_new_repository() -> None:
    store = memory_store()
    make(store)
    config, key = enter(store, PASSWORD)
    assert config.version == 2
    assert len(bytes.fromhex(config.id)) == 32
    assert is_irreducible(config.chunker_seed)
    assert [name for name, _ in store.list(FileType.KEY)] == [key.name]


def test_no_two_repositories_are_alike() -> None:
    stores = [memory_store(), memory_store()]
    for store in stores:
        make(store)
    one, other = (enter(store, PASSWORD) for store in stores)
    assert one[0].id != other[0].id
    assert one[1].master.to_json() != other[1].master.to_json()


def test_a_repository_is_not_made_twice() -> None:
    store = memory_store()
    make(store)
    with pytest.raises(RepositoryExists):
        make(store, "other")
    assert len(store.list(FileType.KEY)) == 1
    enter(store, PASSWORD)


def test_not_a_repository() -> None:
    with pytest.raises(NotARepository):
        enter(memory_store(), PASSWORD)


def test_wrong_password() -> None:
    store = memory_store()
    make(store)
    with pytest.raises(WrongPassword):
        enter(store, "wrong")


@pytest.mark.parametrize("passwords", [("same", "same"), ("one", "other")])
def test_of_two_who_make_it_at_once_one_wins(passwords: tuple[str, str]) -> None:
    both_have_a_key = threading.Barrier(2, timeout=20)

    def before(method: str, path: str) -> None:
        if method == "pipe_file" and path.endswith("/config"):
            both_have_a_key.wait()

    store = memory_store(Interposed(before))
    with ThreadPoolExecutor(2) as pool:
        failures = [pool.submit(make, store, password) for password in passwords]
    lost = [future.exception() for future in failures]
    assert [type(error) for error in lost if error] == [RepositoryExists]
    winner = passwords[lost.index(None)]
    assert [name for name, _ in store.list(FileType.KEY)] == [enter(store, winner)[1].name]


def test_a_loser_keeps_the_key_that_the_winner_took_up() -> None:
    made: list[bool] = []

    def another_comes_first(method: str, path: str) -> None:
        if method == "pipe_file" and path.endswith("/config") and not made:
            made.append(True)
            make(store)  # finds the key that is there already

    store = memory_store(Interposed(another_comes_first))
    with pytest.raises(RepositoryExists):
        make(store)
    assert len(store.list(FileType.KEY)) == 1
    enter(store, PASSWORD)


def test_a_store_without_create_only_still_has_one_winner() -> None:
    class Careless(Interposed):
        def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: object) -> None:
            super().pipe_file(path, value)
            if path.endswith("/config"):
                super().pipe_file(path, b"what somebody else wrote an instant later")

    store = memory_store(Careless(lambda method, path: None))
    with pytest.raises(RepositoryExists):
        make(store)
    assert store.list(FileType.KEY) == []


def test_an_attempt_that_died_leaves_nothing_in_the_way() -> None:
    def refuse_config(method: str, path: str) -> None:
        if method == "pipe_file" and path.endswith("/config"):
            raise Unavailable

    fs = Interposed(refuse_config)
    store = memory_store(fs)
    with pytest.raises(Unavailable):
        make(store)
    fs.before = lambda method, path: None
    make(store)
    assert len(find_keys(store, PASSWORD)) == 1
    enter(store, PASSWORD)


def test_a_useless_key_of_the_same_password_is_passed_over() -> None:
    store = memory_store()
    make(store)
    for _ in range(4):
        create_key(store, PASSWORD, SealingKey.generate(), cost=CHEAP)
    config, key = enter(store, PASSWORD)
    assert config.version == 2
    assert key.master.open(store.load(FileType.CONFIG, "config"))


def test_version_1_has_no_compression() -> None:
    config, _ = enter(with_config(Config(1, "ab" * 32, "25b468838dcb75")), PASSWORD)
    assert not config.has_compression


@pytest.mark.parametrize("version", [0, 3])
def test_other_versions_are_refused_by_number(version: int) -> None:
    with pytest.raises(RepositoryError, match=f"version {version}"):
        enter(with_config(Config(version, "ab" * 32, "25b468838dcb75")), PASSWORD)


def test_a_damaged_configuration() -> None:
    store = memory_store()
    make(store)
    sealed = store.load(FileType.CONFIG, "config")
    store.save(FileType.CONFIG, "config", sealed[:-1] + bytes([sealed[-1] ^ 1]))
    with pytest.raises(Damaged):
        enter(store, PASSWORD)


@pytest.mark.parametrize("config", [Config(2, "short", "25b4"), Config(2, "ab" * 32, "no number")])
def test_a_senseless_configuration(config: Config) -> None:
    def read() -> int:
        return enter(with_config(config), PASSWORD)[0].chunker_seed

    with pytest.raises(Damaged):
        read()


@pytest.mark.parametrize("call", [lambda store: make(store), lambda store: enter(store, PASSWORD)])
def test_a_missing_bucket_is_named(call: Callable[[Store], object], monkeypatch: pytest.MonkeyPatch) -> None:
    store = memory_store()

    def no_bucket(*args: object, **kwargs: object) -> bytes:
        raise BucketMissing

    monkeypatch.setattr(store, "load", no_bucket)
    monkeypatch.setattr(store, "exists", no_bucket)
    with pytest.raises(BucketMissing):
        call(store)


def test_the_configuration_is_written_last_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    store = memory_store(Interposed(lambda method, path: written.append(path) if method == "pipe_file" else None))
    make(store)
    assert [path.split("/")[2] for path in written] == ["keys", "config"]
    with pytest.raises(AlreadyExists):
        store.save(FileType.CONFIG, configuration._NAME, b"other", create=True)
