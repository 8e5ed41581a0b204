from __future__ import annotations

import hashlib

import pytest

from snappy.errors import Damaged, NotFound
from snappy.repository.compression import Compressor
from snappy.repository.crypto import SealingKey
from snappy.repository.documents import Documents, unwrap
from snappy.repository.store import FileType
from tests.support.engine import flip, memory_store

KEY = SealingKey.generate()
JSON = b'{"some":"' + b"json" * 100 + b'"}'


@pytest.mark.parametrize("compressor", [None, Compressor()])
def test_round_trip(compressor: Compressor | None) -> None:
    store = memory_store()
    documents = Documents(store, KEY, compressor)
    name = documents.save(FileType.SNAPSHOT, JSON)
    sealed = store.load(FileType.SNAPSHOT, name)
    assert hashlib.sha256(sealed).hexdigest() == name
    assert (len(sealed) < len(JSON)) == (compressor is not None)
    assert documents.load(FileType.SNAPSHOT, name) == documents.load(FileType.SNAPSHOT, name, len(sealed)) == JSON


def test_damage_is_noticed() -> None:
    store = memory_store()
    documents = Documents(store, KEY, Compressor())
    name = documents.save(FileType.INDEX, JSON)
    flip(store, f"index/{name}", 20)
    with pytest.raises(Damaged, match="SHA-256"):
        documents.load(FileType.INDEX, name)


def test_another_repositorys_document_is_noticed() -> None:
    store = memory_store()
    name = Documents(store, SealingKey.generate(), None).save(FileType.INDEX, JSON)
    with pytest.raises(Damaged):
        Documents(store, KEY, None).load(FileType.INDEX, name)


def test_a_missing_one() -> None:
    with pytest.raises(NotFound):
        Documents(memory_store(), KEY, None).load(FileType.INDEX, "0" * 64)


def test_faulty_memory_is_noticed_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    store = memory_store()
    monkeypatch.setattr(SealingKey, "open", lambda key, sealed: b'{"changed":1}')
    with pytest.raises(Damaged):
        Documents(store, KEY, None).save(FileType.INDEX, JSON)
    assert store.list(FileType.INDEX) == []


@pytest.mark.parametrize("plain", [b"", b"\x01{}", b"\x02not zstd", b'"text"'])
def test_an_unknown_encoding(plain: bytes) -> None:
    with pytest.raises(Damaged):
        unwrap(plain)


def test_bytes_that_only_a_reading_harmed_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    store = memory_store()
    documents = Documents(store, KEY, None)
    name = documents.save(FileType.INDEX, JSON)
    whole = store.load(FileType.INDEX, name)
    harmed = [whole[:-1] + bytes([whole[-1] ^ 1])]
    monkeypatch.setattr(store, "load", lambda *_asked: harmed.pop() if harmed else whole)
    assert documents.load(FileType.INDEX, name) == JSON
    assert not harmed
