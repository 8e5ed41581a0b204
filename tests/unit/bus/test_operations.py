from __future__ import annotations

import secrets

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from snappy.bus.operations import Listings, Operations
from snappy.bus.protocol import Copy, Find, List, MakeDirectory, PageAnswer, PathRequest, Put, encode
from snappy.errors import AccessDenied, AlreadyExists, NotFound
from snappy.targets.policy import PolicyFileSystem

MANY = 250


@pytest.fixture
def files() -> PolicyFileSystem:
    made = PolicyFileSystem(MemoryFileSystem(), f"/{secrets.token_hex(8)}", "rlwWd")
    for number in range(MANY):
        made.pipe_file(f"data/{number % 3}/{number:04}", b"x" * number)
    return made


def everything(operations: list[Operations], files: PolicyFileSystem, request: Find) -> list[str]:
    """All pages, each asked of the next of ``operations``, as a queue group does."""
    names: list[str] = []
    listing = cursor = ""
    for turn in range(10_000):
        ask = Find(path=request.path, limit=request.limit, listing=listing, cursor=cursor)
        page: PageAnswer = operations[turn % len(operations)].find(files, ask)
        names += [item.name for item in page.items]
        listing, cursor = page.listing, page.cursor
        if not cursor:
            return names
    raise AssertionError("the pages do not end")


@pytest.mark.parametrize("limit", [1, 7, MANY - 1, MANY, MANY + 1])
def test_pages_hold_everything_once_and_in_order(files: PolicyFileSystem, limit: int) -> None:
    names = everything([Operations(1 << 20)], files, Find(path="data", limit=limit))
    assert names == sorted(files.find("data"))


def test_another_replica_goes_on_where_the_first_stopped(files: PolicyFileSystem) -> None:
    names = everything([Operations(1 << 20), Operations(1 << 20)], files, Find(path="data", limit=20))
    assert names == sorted(files.find("data"))


def test_a_page_stays_within_its_bytes(files: PolicyFileSystem) -> None:
    operations = Operations(2000)
    page = operations.find(files, Find(path="data"))
    assert page.cursor
    assert len(encode(page)) <= 2000
    assert everything([operations], files, Find(path="data")) == sorted(files.find("data"))


def test_a_listing_is_not_made_anew_for_each_page(files: PolicyFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    find = PolicyFileSystem.find
    monkeypatch.setattr(PolicyFileSystem, "find", lambda *a, **k: asked.append(1) or find(*a, **k))
    everything([Operations(1 << 20)], files, Find(path="data", limit=10))
    assert len(asked) == 1


def test_the_name_of_a_listing_opens_no_other(files: PolicyFileSystem) -> None:
    operations = Operations(1 << 20)
    first = operations.find(files, Find(path="data", limit=10))
    other = operations.find(files, Find(path="data/1", listing=first.listing, cursor=""))
    assert {item.name.split("/")[1] for item in other.items} == {"1"}


def test_a_page_of_a_listing_still_asks_for_the_right(files: PolicyFileSystem) -> None:
    operations = Operations(1 << 20)
    first = operations.find(files, Find(path="data", limit=10))

    def refuse(right: str) -> None:
        raise AccessDenied(right)

    with pytest.raises(AccessDenied):
        operations.find(files.asking(refuse), Find(path="data", listing=first.listing, cursor=first.cursor))


def test_listings_are_forgotten_by_age_and_number() -> None:
    now = [0.0]
    listings = Listings(keep=2, seconds=60, clock=lambda: now[0])
    for name in ("a", "b", "c"):
        listings.put(name, [])
    assert listings.take("a") is None
    assert listings.take("b") == []
    now[0] = 61.0
    assert listings.take("c") is None


def test_ls_shows_one_level(files: PolicyFileSystem) -> None:
    page = Operations(1 << 20).ls(files, List(path="data"))
    assert [(item.name, item.type) for item in page.items] == [(f"data/{n}", "directory") for n in range(3)]


def test_info_and_exists(files: PolicyFileSystem) -> None:
    operations = Operations(1 << 20)
    assert operations.info(files, PathRequest(path="data/1/0100")).item.size == 100  # type: ignore[union-attr]
    assert operations.exists(files, PathRequest(path="data/1/0100")).exists
    assert not operations.exists(files, PathRequest(path="data/1/none")).exists


def test_put_creates_once(files: PolicyFileSystem) -> None:
    put = Put(path="new", data=b"content", mode="create")
    Operations(1 << 20).put(files, put)
    with pytest.raises(AlreadyExists):
        Operations(1 << 20).put(files, put)


def test_rm_takes_objects_and_empty_directories(files: PolicyFileSystem) -> None:
    operations = Operations(1 << 20)
    operations.make_directory(files, MakeDirectory(path="empty"))
    operations.remove(files, PathRequest(path="empty"))
    operations.remove(files, PathRequest(path="data/1/0100"))
    assert not files.exists("empty")
    assert not files.exists("data/1/0100")
    with pytest.raises(FileNotFoundError):
        operations.remove(files, PathRequest(path="data/1/0100"))


def test_cp_makes_a_second_object(files: PolicyFileSystem) -> None:
    Operations(1 << 20).copy(files, Copy(path="data/1/0100", to="copies/one"))
    assert files.cat_file("copies/one") == files.cat_file("data/1/0100")
    with pytest.raises((FileNotFoundError, NotFound)):
        Operations(1 << 20).copy(files, Copy(path="none", to="copies/two"))


def test_a_listing_that_nobody_came_back_for_is_let_go() -> None:
    now = [0.0]
    listings = Listings(seconds=60, clock=lambda: now[0])
    listings.put("left", [])
    now[0] = 61.0
    listings.put("new", [])
    now[0] = 0.0
    assert (listings.take("left"), listings.take("new")) == (None, [])
