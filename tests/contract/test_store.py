"""What the engine demands of a filesystem, asked of each that it meets: a folder, S3, and a target over the bus."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from snappy.bus.filesystem import SnappyFileSystem
from snappy.errors import AlreadyExists, BucketMissing, Corrupt, NotFound, RepositoryExists, SnappyError
from snappy.repository.format import BlobType
from snappy.repository.pack_writer import Options
from snappy.repository.repo import Repository
from snappy.repository.store import FileType, Store
from snappy.targets.opening import open_storage, open_target
from tests.support.engine import CHEAP, OWNER, PASSWORD
from tests.support.fileservers import ALL_RIGHTS, served
from tests.support.natsserver import NatsServer
from tests.support.weed import Weed

NAME = "ab" + "0" * 62


@pytest.fixture
def bucket(weed: Weed) -> str:
    name = f"vault-{secrets.token_hex(4)}"
    fsspec.filesystem("s3", skip_instance_cache=True, **weed.options).mkdir(name)
    return name


@pytest.fixture
def in_a_folder(tmp_path: Path) -> Store:
    return Store(open_target((tmp_path / "repository").as_uri(), rights=ALL_RIGHTS), "")


@pytest.fixture
def in_a_bucket(weed: Weed, bucket: str) -> Store:
    return Store(*open_storage(f"s3://{bucket}/deep/repository", weed.options))


@pytest.fixture
def over_the_bus(stock_nats: NatsServer, tmp_path: Path) -> Iterator[Store]:
    target = f"vault-{secrets.token_hex(4)}"
    files = open_target((tmp_path / "vault").as_uri(), rights=ALL_RIGHTS)
    with served(files, stock_nats.url, target):
        fs = SnappyFileSystem(target, stock_nats.url, caller="site1")
        yield Store(fs, "")
        fs.close()


@pytest.fixture(params=["in_a_folder", pytest.param("in_a_bucket", marks=pytest.mark.s3), "over_the_bus"])
def store(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue(request.param)
    return found


def test_files_come_and_go(store: Store) -> None:
    assert store.list(FileType.LOCK) == []
    assert not store.exists(FileType.CONFIG, "config")
    store.save(FileType.CONFIG, "config", b"some bytes")
    assert store.exists(FileType.CONFIG, "config")
    assert store.load(FileType.CONFIG, "config") == b"some bytes"
    assert store.load(FileType.CONFIG, "config", 5, 3) == b"byt"
    with pytest.raises(Corrupt):
        store.load(FileType.CONFIG, "config", 5, 100)
    with pytest.raises(Corrupt):
        store.load(FileType.CONFIG, "config", 100, 5)
    with pytest.raises(NotFound):
        store.load(FileType.PACK, NAME)


def test_of_many_who_create_a_file_one_wins(store: Store) -> None:
    def create(number: int) -> int | None:
        try:
            store.save(FileType.CONFIG, "config", bytes([number]), create=True)
        except AlreadyExists:
            return None
        return number

    with ThreadPoolExecutor(4) as pool:
        winners = [number for number in pool.map(create, range(4)) if number is not None]
    assert [bytes([number]) for number in winners] == [store.load(FileType.CONFIG, "config")]


def test_a_repository_lives_there(store: Store) -> None:
    blobs = [os.urandom(300_000) for _ in range(20)]
    with Repository.init(store, PASSWORD, cost=CHEAP, options=Options(pack_size=1 << 20)) as repository:
        with repository.lock(owner=OWNER) as lock:
            for data in blobs:
                repository.save_blob(BlobType.DATA, data)
            repository.flush()
            lock.refresh()
        assert store.list(FileType.LOCK) == []
        assert len(store.list(FileType.PACK)) >= 5
    with pytest.raises(RepositoryExists):
        Repository.init(store, "other", cost=CHEAP)
    assert len(store.list(FileType.KEY)) == 1
    with Repository.open(store, PASSWORD) as again:
        again.load_index()
        for pack in again.index.packs():
            wanted = [blob for blob in again.index if blob.pack == pack]
            assert {data for _, data in again.load_blobs(pack, wanted)} <= set(blobs)
        assert len(list(again.index)) == len(blobs)


@pytest.mark.s3
def test_a_missing_bucket_is_said_and_not_made(weed: Weed) -> None:
    store = Store(*open_storage("s3://no-such-bucket/repository", weed.options))
    for call in (
        lambda: Repository.init(store, PASSWORD, cost=CHEAP),
        lambda: Repository.open(store, PASSWORD),
        lambda: store.list(FileType.PACK),
    ):  # not a bare save: SeaweedFS makes the bucket for whoever writes into it
        with pytest.raises(BucketMissing):
            call()
    assert not fsspec.filesystem("s3", skip_instance_cache=True, **weed.options).exists("no-such-bucket")


@pytest.mark.s3
def test_wrong_credentials_are_a_refusal_that_names_none(weed: Weed, bucket: str) -> None:
    wrong = weed.options | {"secret": "not-the-secret"}
    with pytest.raises(SnappyError) as caught:
        Store(*open_storage(f"s3://{bucket}/repository", wrong)).save(FileType.KEY, NAME, b"x")
    assert caught.value.code == "access-denied"
    assert weed.access_key not in caught.value.message
