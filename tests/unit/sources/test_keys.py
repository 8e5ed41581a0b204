"""Jobs on keys: what they come to, and what an attempt does that follows one that was lost."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from snappy.errors import KeyInUse, KeyNotFound, UnknownKey, WrongPassword
from snappy.jobs.result_words import Keys
from snappy.jobs.upkeep import KeyCommand
from snappy.repository.progress import Progress
from snappy.repository.repo import Repository
from snappy.repository.store import FileType, Store
from snappy.sources.tasks import prepare
from snappy.sources.workshop import Workshop
from tests.support.engine import CHEAP, PASSWORD, memory_store, new_repository
from tests.unit.sources.test_checks import NAMES, Hold

PASSWORDS = {"default": PASSWORD, "next": "second"}


@pytest.fixture
def store() -> Store:
    made = memory_store()
    new_repository(made)
    return made


async def run(store: Store, action: Any, *, key: str = "default", attempt: int = 1, **more: Any) -> Keys:
    hold: Any = Hold()
    hold.attempt = attempt
    shop = Workshop(
        hold=hold,
        store=store,
        password=PASSWORDS[key],
        progress=Progress(),
        owner="snappy.site.r1",
        host="north",
        passwords=password,
    )
    done = (await prepare("key", KeyCommand(**NAMES, key=key, action=action, **more)).work(shop)).keys
    assert done is not None
    assert store.list(FileType.LOCK) == []
    return done


def password(key: str) -> str:
    if key not in PASSWORDS:
        raise UnknownKey(key)
    return PASSWORDS[key]


async def test_a_rotation(store: Store) -> None:
    (old,) = (await run(store, "list")).keys
    added = await run(store, "add", new_key="next", user="joe", host="moon")
    assert (added.count, added.removed) == (2, "")
    assert [(key.user, key.host) for key in added.keys if key.id == added.added] == [("joe", "moon")]
    with pytest.raises(KeyInUse):
        await run(store, "remove", id=old.id)
    removed = await run(store, "remove", key="next", id=old.id[:8])
    assert removed.removed == old.id
    assert [(key.id, key.current) for key in removed.keys] == [(added.added, True)]
    with pytest.raises(WrongPassword):
        await run(store, "list")


async def test_a_change(store: Store) -> None:
    done = await run(store, "change", new_key="next")
    assert [(key.id, key.current) for key in done.keys] == [(done.added, True)]
    assert done.removed not in ("", done.added)


async def test_the_source_service_has_to_know_the_password(store: Store) -> None:
    with pytest.raises(UnknownKey):
        await run(store, "add", new_key="none")
    assert (await run(store, "list")).count == 1


async def test_another_attempt_adds_no_second_key(store: Store) -> None:
    first = await run(store, "add", new_key="next")
    assert await run(store, "add", new_key="next", attempt=2) == first
    assert (await run(store, "add", new_key="next")).count == 3


async def test_another_attempt_finds_the_key_removed(store: Store) -> None:
    with pytest.raises(KeyNotFound):
        await run(store, "remove", id="0123abcd")
    assert (await run(store, "remove", id="0123abcd", attempt=2)).removed == "0123abcd"


async def test_another_attempt_finds_the_change_done(store: Store) -> None:
    done = await run(store, "change", new_key="next")
    again = await run(store, "change", new_key="next", attempt=2)
    assert (again.added, again.keys) == (done.added, done.keys)
    with pytest.raises(WrongPassword):
        await run(store, "change", new_key="next")


async def test_another_attempt_finds_the_change_half_done(store: Store) -> None:
    added = Repository.open(store, PASSWORD).keys(CHEAP).add("second")
    done = await run(store, "change", new_key="next", attempt=2)
    assert (done.added, done.count) == (added, 1)


async def test_names_in_a_key_file_are_told_in_part(store: Store) -> None:
    Repository.open(store, PASSWORD).keys(CHEAP).add("second", user="u" * 10_000)
    assert max(len(key.user) for key in (await run(store, "list")).keys) < 400


@pytest.mark.parametrize(
    "wrong",
    [
        {"action": "add"},
        {"action": "remove"},
        {"action": "remove", "id": "abc"},
        {"action": "remove", "id": "../config0"},
        {"action": "remove", "id": "0123abcd", "new_key": "next"},
        {"action": "list", "id": "0123abcd"},
        {"action": "list", "user": "joe"},
        {"action": "change", "new_key": "/etc/password"},
        {"action": "forget"},
    ],
)
def test_what_cannot_be_asked(wrong: dict[str, str]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**NAMES, **wrong}, KeyCommand)
