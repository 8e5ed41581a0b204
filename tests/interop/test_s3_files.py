"""Objects of a real S3 server as a source, and as a place to restore to; credentials come from the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from snappy.errors import SourceMissing
from snappy.sources.files import FilesOptions, FilesSource
from tests.support import engine
from tests.support.backups import back_up, bring_back
from tests.support.weed import Weed, weed_server

pytestmark = pytest.mark.s3


@pytest.fixture(scope="module")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    with weed_server(tmp_path_factory.mktemp("weed")) as server:
        yield server


@pytest.fixture
def s3(weed: Weed, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", weed.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", weed.secret_key)
    monkeypatch.setenv("AWS_ENDPOINT_URL", weed.endpoint)
    filesystem = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False, **weed.options)
    filesystem.makedirs("mine", exist_ok=True)
    return filesystem


async def test_a_bucket_there_and_back_again(s3: Any) -> None:
    large = os.urandom(20 << 20)
    objects = {"a/x": b"x", "a/empty": b"", "a.txt": b"text", "ünï": b"names", "large": large}
    for name, content in objects.items():
        s3.pipe_file(f"mine/data/{name}", content)
    source = FilesSource(FilesOptions(paths=("s3://mine/data",)))
    async with source.snap():
        pass
    with engine.new_repository() as repository:
        first = back_up(repository, "s3://mine/data")
        second = back_up(repository, "s3://mine/data", parent=first.snapshot)
        result = bring_back(repository, first.snapshot, "s3://mine/out")
    assert first.warnings == []
    assert first.bytes_read == sum(map(len, objects.values()))
    assert (second.bytes_read, second.snapshot.tree) == (0, first.snapshot.tree)
    assert result.errors == []
    assert {name: s3.cat_file(f"mine/out/s3/mine/data/{name}") for name in objects} == objects


def test_overwriting_with_as_many_bytes_in_the_same_second_is_seen(s3: Any) -> None:
    with engine.new_repository() as repository:
        s3.pipe_file("mine/swift/one", b"before")
        first = back_up(repository, "s3://mine/swift")
        s3.pipe_file("mine/swift/one", b"after.")
        second = back_up(repository, "s3://mine/swift", parent=first.snapshot)
    assert second.bytes_read == 6


@pytest.mark.parametrize("url", ["s3://nobody-has-this-bucket", "s3://mine/nowhere"])
async def test_what_is_missing(s3: Any, url: str) -> None:
    with pytest.raises(SourceMissing):
        async with FilesSource(FilesOptions(paths=(url,))).snap():
            pass


def test_a_missing_bucket_to_restore_to_is_not_made(s3: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with engine.new_repository() as repository:
        snapshot = back_up(repository, tmp_path).snapshot
        with pytest.raises(SourceMissing, match="not-made"):
            bring_back(repository, snapshot, "s3://not-made")
    assert not s3.exists("not-made")
