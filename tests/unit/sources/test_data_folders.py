"""Folders that restores make beside their place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from snappy.errors import BadOptions, SourceError
from snappy.sources.data_folders import NewFolder


@pytest.fixture
def place(tmp_path: Path) -> bytes:
    return os.fsencode(tmp_path / "above" / "data")


@pytest.fixture
def folder(place: bytes) -> Iterator[NewFolder]:
    with closing(NewFolder(place)) as made:
        yield made


def test_what_was_made_gets_its_place_and_nothing_else_stays(place: bytes, folder: NewFolder) -> None:
    made = folder.make(b"new")
    Path(os.fsdecode(made), "file").touch()
    folder.put(made, os.getuid(), os.getgid())
    folder.close()
    assert os.listdir(os.path.dirname(place)) == [b"data"]
    assert os.listdir(place) == [b"file"]
    assert os.stat(place).st_mode & 0o777 == 0o700


def test_what_another_restore_makes_stays(place: bytes, folder: NewFolder) -> None:
    made = folder.make(b"new")
    with pytest.raises(BadOptions, match="another restore"):
        NewFolder(place)
    assert os.path.isdir(made)


def test_what_a_dead_restore_left_goes(place: bytes) -> None:
    os.makedirs(place + b".snappy-unfinished/new/deep")
    with closing(NewFolder(place)) as folder:
        assert os.listdir(folder.path) == []


def test_what_stands_there_is_not_replaced(place: bytes, folder: NewFolder) -> None:
    os.makedirs(place)
    made = folder.make(b"new")
    Path(os.fsdecode(place), "mine").touch()
    with pytest.raises(BadOptions, match="not empty"):
        folder.put(made, -1, -1)
    folder.close()
    assert os.listdir(place) == [b"mine"]
    with pytest.raises(BadOptions, match="not empty"):
        NewFolder(place)
    assert os.listdir(os.path.dirname(place)) == [b"data"]


def test_where_no_folder_can_be_made_is_said_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "above").touch()
    with pytest.raises(SourceError) as raised:
        NewFolder(os.fsencode(tmp_path / "above" / "data"))
    assert raised.value.hint
