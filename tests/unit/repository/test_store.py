from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import fsspec
import pytest

from snappy import errors
from snappy.repository.store import FileType, Store, storage_error
from tests.support.engine import Interposed, memory_store

NAME = "ab" + "0" * 62


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return memory_store() if request.param == "memory" else Store(fsspec.filesystem("file"), str(tmp_path))


class FakeClientError(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}}


def from_s3(error: Exception, code: str) -> Exception:
    error.__cause__ = FakeClientError(code)
    return error


@pytest.mark.parametrize("kind", list(FileType))
def test_what_was_saved_is_loaded(store: Store, kind: FileType) -> None:
    store.save(kind, NAME, b"some bytes")
    assert store.load(kind, NAME) == b"some bytes"
    assert store.load(kind, NAME, 5) == b"bytes"
    assert store.load(kind, NAME, 5, 3) == b"byt"
    assert store.load(kind, NAME, 0, 0) == b""
    assert store.exists(kind, NAME)


def test_what_lies_in_anothers_memory_is_saved_as_it_was_then(store: Store) -> None:
    memory = bytearray(b"..some bytes..")
    store.save(FileType.PACK, NAME, memoryview(memory)[2:-2])
    memory[:] = bytes(len(memory))
    assert store.load(FileType.PACK, NAME) == b"some bytes"


@pytest.mark.parametrize("kind", [kind for kind in FileType if kind is not FileType.CONFIG])
def test_list_and_remove(store: Store, kind: FileType) -> None:
    assert store.list(kind) == []
    store.save(kind, NAME, b"12345")
    assert store.list(kind) == [(NAME, 5)]
    store.remove(kind, NAME)
    assert store.list(kind) == []
    assert not store.exists(kind, NAME)


def test_packs_lie_on_shelves_of_their_first_letters(tmp_path: Path) -> None:
    Store(fsspec.filesystem("file"), str(tmp_path)).save(FileType.PACK, NAME, b"x")
    assert (tmp_path / "data" / "ab" / NAME).read_bytes() == b"x"


def test_foreign_files_are_not_listed(tmp_path: Path) -> None:
    store = Store(fsspec.filesystem("file"), str(tmp_path))
    store.save(FileType.INDEX, NAME, b"x")
    for odd in (".tmp-123", "README", NAME.upper(), NAME + "0"):
        (tmp_path / "index" / odd).write_bytes(b"y")
    (tmp_path / "index" / ("c" * 64)).mkdir()
    assert store.list(FileType.INDEX) == [(NAME, 1)]


def test_a_short_read_is_corrupt(store: Store) -> None:
    store.save(FileType.PACK, NAME, b"12345")
    with pytest.raises(errors.Corrupt):
        store.load(FileType.PACK, NAME, 3, 3)


def test_create_refuses_anothers_file(store: Store) -> None:
    store.save(FileType.CONFIG, "config", b"first", create=True)
    with pytest.raises(errors.AlreadyExists):
        store.save(FileType.CONFIG, "config", b"other", create=True)
    assert store.load(FileType.CONFIG, "config") == b"first"


def test_create_accepts_its_own_file_again(store: Store) -> None:
    store.save(FileType.CONFIG, "config", b"first", create=True)
    store.save(FileType.CONFIG, "config", b"first", create=True)


def test_missing_files(store: Store) -> None:
    for kind in (FileType.CONFIG, FileType.PACK, FileType.LOCK):
        assert not store.exists(kind, NAME)
        with pytest.raises(errors.NotFound):
            store.load(kind, NAME)
        with pytest.raises(errors.NotFound):
            store.remove(kind, NAME)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (FileNotFoundError("/srv/secret"), errors.NotFound),
        (FileExistsError("/srv/secret"), errors.AlreadyExists),
        (PermissionError("/srv/secret"), errors.AccessDenied),
        (OSError(errno.ENOSPC, "/srv/secret"), errors.NoSpace),
        (OSError(errno.EDQUOT, "/srv/secret"), errors.NoSpace),
        (TimeoutError("/srv/secret"), errors.Unavailable),
        (ConnectionResetError("/srv/secret"), errors.Unavailable),
        (OSError(errno.EIO, "/srv/secret"), errors.Unavailable),
        (RuntimeError("/srv/secret"), errors.Unavailable),
        (from_s3(OSError(errno.EINVAL, "/srv/secret"), "PreconditionFailed"), errors.AlreadyExists),
        (from_s3(OSError(errno.EINVAL, "/srv/secret"), "InvalidRange"), errors.Corrupt),
        (from_s3(PermissionError("/srv/secret"), "AccessDenied"), errors.AccessDenied),
        (FakeClientError("BadDigest"), errors.Corrupt),
    ],
)
def test_every_failure_becomes_one_of_ours(raised: Exception, expected: type[Exception]) -> None:
    found = storage_error(raised, "index abcd")
    assert type(found) is expected
    assert "secret" not in found.message


def test_our_own_errors_pass_through() -> None:
    refusal = errors.AttemptOver()

    def refuse(method: str, path: str) -> None:
        raise refusal

    with pytest.raises(errors.AttemptOver) as caught:
        memory_store(Interposed(refuse)).save(FileType.KEY, NAME, b"")
    assert caught.value is refusal


def test_a_missing_bucket_is_said_and_never_made() -> None:
    class NoBucket(Interposed):
        def makedirs(self, path: str, exist_ok: bool = False) -> None:
            raise AssertionError("makedirs would create the bucket")

        def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
            missing("ls", path)
            return []

    def missing(method: str, path: str) -> None:
        raise from_s3(FileNotFoundError("The specified bucket does not exist"), "NoSuchBucket")

    store = memory_store(NoBucket(missing))
    with pytest.raises(errors.BucketMissing):
        store.save(FileType.KEY, NAME, b"x")
    with pytest.raises(errors.BucketMissing):
        store.list(FileType.KEY)


def test_an_error_that_is_its_own_cause_ends_all_the_same() -> None:
    error, cause = OSError("x"), OSError("y")
    error.__cause__, cause.__cause__ = cause, error
    assert isinstance(storage_error(error, "a file"), errors.Unavailable)
