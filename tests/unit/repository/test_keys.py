from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from unittest.mock import Mock

import pytest

from snappy.errors import Damaged, WrongPassword
from snappy.repository.crypto import SealingKey
from snappy.repository.keys import ScryptCost, create_key, find_keys
from snappy.repository.store import FileType, Store
from tests.support.engine import CHEAP, memory_store

MASTER = SealingKey(b"e" * 32, b"k" * 16, b"r" * 16)


def stored_with(store: Store, name: str, **changes: object) -> str:
    """A copy of a key file with other fields, under its right name."""
    document = json.loads(store.load(FileType.KEY, name)) | changes
    data = json.dumps(document).encode()
    changed = hashlib.sha256(data).hexdigest()
    store.save(FileType.KEY, changed, data)
    return changed


def test_the_password_opens_the_key() -> None:
    store = memory_store()
    made = create_key(store, "pässword", MASTER, cost=CHEAP)
    (found,) = find_keys(store, "pässword")
    assert found.name == made.name
    assert found.master.to_json() == MASTER.to_json()


def test_several_passwords() -> None:
    store = memory_store()
    for password in ("one", "two", "three"):
        create_key(store, password, MASTER, cost=CHEAP)
    assert find_keys(store, "two")[0].master.to_json() == MASTER.to_json()
    with pytest.raises(WrongPassword):
        find_keys(store, "four")


def test_the_file_says_who_made_it_and_hides_the_key() -> None:
    store = memory_store()
    key = create_key(store, "one", MASTER, cost=CHEAP, now=datetime(2026, 1, 2, tzinfo=UTC))
    data = store.load(FileType.KEY, key.name)
    assert hashlib.sha256(data).hexdigest() == key.name
    document = json.loads(data)
    assert document["created"] == "2026-01-02T00:00:00+00:00"
    assert (document["kdf"], document["N"], document["r"], document["p"]) == ("scrypt", *CHEAP)
    assert b"e" * 32 not in data
    assert b"ZWVlZWVl" not in data


def test_by_default_a_password_takes_long_to_guess() -> None:
    store = memory_store()
    document = json.loads(store.load(FileType.KEY, create_key(store, "one", MASTER).name))
    assert (document["N"], document["r"], document["p"]) == (1 << 15, 8, 5)


def test_no_key_at_all_is_a_wrong_password() -> None:
    with pytest.raises(WrongPassword):
        find_keys(memory_store(), "one")


def test_a_damaged_key_does_not_hide_a_good_one() -> None:
    store = memory_store()
    store.save(FileType.KEY, "0" * 64, b"damaged")
    good = create_key(store, "one", MASTER, cost=CHEAP)
    assert [key.name for key in find_keys(store, "one")] == [good.name]


def test_with_only_a_damaged_key_the_password_is_not_blamed() -> None:
    store = memory_store()
    store.save(FileType.KEY, "0" * 64, b"damaged")
    with pytest.raises(Damaged):
        find_keys(store, "one")


@pytest.mark.parametrize(
    "changes",
    [
        {"kdf": "md5"},
        {"N": 0},
        {"N": 3},
        {"N": -2},
        {"r": 0},
        {"p": 0},
        {"N": 1 << 40},
        {"p": 1 << 30},
        {"N": 2, "r": 1 << 30},
        {"N": 1 << 17, "p": 1 << 17},
        {"data": "AAAA"},
        {"salt": 5},
    ],
)
def test_what_would_take_all_memory_or_makes_no_sense_is_refused(changes: dict[str, object]) -> None:
    store = memory_store()
    made = create_key(store, "one", MASTER, cost=ScryptCost(n=2, r=1, p=1))
    stored_with(store, made.name, **changes)
    store.remove(FileType.KEY, made.name)
    with pytest.raises((Damaged, WrongPassword)):
        find_keys(store, "one")


def test_a_password_is_made_a_key_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store, password = memory_store(), os.urandom(8).hex()
    create_key(store, password, MASTER, cost=CHEAP)
    derive = Mock(wraps=SealingKey.from_scrypt)
    monkeypatch.setattr(SealingKey, "from_scrypt", derive)
    found = [find_keys(store, password)[0] for _ in range(3)]
    assert {key.master.to_json() for key in found} == {MASTER.to_json()}
    assert derive.call_count == 1
    store.remove(FileType.KEY, found[0].name)
    with pytest.raises(WrongPassword):
        find_keys(store, password)
