"""The plug-in ``s3`` in the contract, and what objects have beside their content: on SeaweedFS and Ceph's radosgw."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from snappy.errors import SnappyError, SourceUnavailable
from snappy.repository.entries import Entry
from snappy.sources.plugins.s3 import BLOCK, TOGETHER, WHOLE, S3Options, S3Source
from snappy.sources.plugins.s3_bucket import Bucket
from snappy.sources.site import Site
from tests.support import radosgw, source_site
from tests.support.background import repeated
from tests.support.radosgw import Gateway
from tests.support.source_contract import Ground, Refused, SourceContract
from tests.support.weed import Weed

pytestmark = pytest.mark.s3
ON_RADOSGW = [pytest.mark.radosgw, pytest.mark.long]

DATA, BACK = "data", "back"
OBJECTS = 16
DIGEST = 32
ABOUT = {
    "ContentType": "text/plain; charset=utf-8",
    "CacheControl": "max-age=60",
    "ContentDisposition": 'attachment; filename="a b"',
    "ContentLanguage": "de",
    "Metadata": {"owner": "alice", "number": "7"},
    "Tagging": "keep=long&for=a%20b%2Bc",
}


class S3Ground:
    """Objects that begin with their SHA-256; some are overwritten while they are backed up."""

    plugin = "s3"
    changes_share = 0.2
    works_in_folder = False

    def __init__(self, server: Weed | Gateway, folder: Path) -> None:
        self.tags_touch = isinstance(server, Gateway)  # a new tag is a new time of modification there
        secret = folder / "secret"
        secret.write_text(server.secret_key)
        secret.chmod(0o600)
        right = {"endpoint": server.endpoint, "key": server.access_key, "secret": {"file": str(secret)}}
        self._settings = {"main": right, "wrong": {**right, "key": "nobody"}}
        self._settings["down"] = {**right, "endpoint": "http://127.0.0.1:9"}
        self._random, self._size = random.Random(1), 0
        self._buckets: dict[str, Bucket] = {}
        for name in (DATA, BACK):
            self.bucket(name).fs.call_s3("create_bucket", Bucket=name)

    def bucket(self, name: str) -> Bucket:
        if name not in self._buckets:
            self._buckets[name] = Bucket(Site("site", {"s3": self._settings}), "main", name)
        return self._buckets[name]

    def settings(self) -> dict[str, dict[str, Any]]:
        return self._settings

    def options(self) -> dict[str, Any]:
        return {"server": "main", "bucket": DATA}

    def restore_options(self, other: bool) -> dict[str, Any]:
        return {"server": "main", "bucket": BACK if other else DATA}

    def restore_into(self, folder: Path) -> dict[str, Any] | None:
        return None

    def fill(self, size: int) -> None:
        self._size = size // OBJECTS
        for number in range(OBJECTS):
            self._write(f"kept/{number:02}", self._size, number)

    def change(self, share: float) -> None:
        self._write("kept/00", max(1, int(share * self._size * OBJECTS)), 0)

    def writing(self) -> AbstractContextManager[Callable[[], int]]:
        def write(number: int) -> None:
            self._write(f"new/{number % 20:02}", self._random.randrange(100_000), number)
            time.sleep(0.01)  # else some change faster than they can be read

        return repeated(write)

    def wipe(self) -> None:
        for name in (DATA, BACK):
            for key in self._keys(name):
                self.bucket(name).call("delete_object", Key=key)

    def check(self, other: bool) -> None:
        found = self.content(other)
        assert {f"kept/{number:02}" for number in range(OBJECTS)} <= set(found)
        for key, (data, xattrs) in found.items():
            assert hashlib.sha256(data[DIGEST:]).digest() == data[:DIGEST], key
            assert xattrs[b"user.s3.meta.digest"].decode() == data[:DIGEST].hex(), key

    def content(self, other: bool) -> dict[str, tuple[bytes, dict[bytes, bytes]]]:
        name = BACK if other else DATA
        bucket, keys = self.bucket(name), self._keys(name)
        abouts = bucket.about([(key, "") for key in keys], tags=True)
        return {key: (bucket.read(key), about[1]) for key, about in zip(keys, abouts, strict=True)}  # type: ignore[index]

    def leftovers(self) -> list[str]:
        found = [self.bucket(name).call("list_multipart_uploads").get("Uploads", []) for name in (DATA, BACK)]
        return [str(one) for some in found for one in some]

    def refused(self) -> Sequence[Refused]:
        self.bucket(DATA).call("put_object", Key="kept/01", Body=b"another")
        return [
            Refused("a bucket that there is not", "source-missing", {"server": "main", "bucket": "no-such"}),
            Refused("a prefix that there is not", "source-missing", {**self.options(), "prefix": "no/such"}),
            Refused("wrong credentials", "source-denied", {"server": "wrong", "bucket": DATA}),
            Refused("a server that is down", "source-unavailable", {"server": "down", "bucket": DATA}),
            Refused("a server that there is not", "bad-options", {"server": "no", "bucket": DATA}),
            Refused("a way out", "bad-options", {**self.options(), "prefix": "a/../b"}),
            Refused("what stands there", "source", self.restore_options(False), "restore"),
            Refused("no bucket to restore to", "source-missing", {"server": "main", "bucket": "no-such"}, "restore"),
        ]

    def _keys(self, name: str) -> list[str]:
        keys, more = [], {}
        while True:
            page = self.bucket(name).call("list_objects_v2", **more)
            keys += [one["Key"] for one in page.get("Contents", [])]
            if not page["IsTruncated"]:
                return keys
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _write(self, key: str, size: int, number: int) -> None:
        data = self._random.randbytes(size)
        digest = hashlib.sha256(data).digest()
        about = {"Metadata": {"digest": digest.hex()}, "Tagging": f"number={number}"}
        self.bucket(DATA).call("put_object", Key=key, Body=digest + data, **about)


@pytest.fixture(scope="module", params=["seaweedfs", pytest.param("radosgw", marks=ON_RADOSGW)])
def ground(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("s3")
    if request.param == "seaweedfs":
        yield S3Ground(request.getfixturevalue("weed"), folder)
        return
    with radosgw.in_short_folder() as gateway:
        yield S3Ground(gateway, folder)


class TestS3(SourceContract):
    """All that is asked of it."""


@pytest.fixture
def emptied(ground: S3Ground) -> S3Ground:
    ground.wipe()
    return ground


async def test_headers_metadata_and_tags_come_back_and_show_when_they_alone_change(
    emptied: S3Ground, tmp_path: Path
) -> None:
    data = emptied.bucket(DATA)
    for key, body in {"a b/ü.txt": b"text", "empty": b"", "large": b"x" * (WHOLE + BLOCK + 1)}.items():
        data.call("put_object", Key=key, Body=body, **ABOUT)
    async with source_site.running(tmp_path, "s3", emptied.settings()) as site:
        await site.done("backup", options=emptied.options(), init=True)
        data.call("put_object_tagging", Key="empty", Tagging={"TagSet": [{"Key": "keep", "Value": "short"}]})
        again = await site.done("backup", options=emptied.options())
        await site.done("restore", options={**emptied.restore_options(True), "prefix": "x/y"})
    assert again.result
    assert again.result.files_unmodified == (2 if emptied.tags_touch else 3)
    back = {key.removeprefix("x/y/"): value for key, value in emptied.content(True).items()}
    assert back == emptied.content(False)
    text, about = back["a b/ü.txt"]
    assert text == b"text"
    assert about[b"user.s3.content-type"] == b"text/plain; charset=utf-8"
    assert about[b"user.s3.cache-control"] == b"max-age=60"
    assert about[b"user.s3.content-disposition"] == b'attachment; filename="a b"'
    assert about[b"user.s3.content-language"] == b"de"
    assert about[b"user.s3.meta.owner"] == b"alice"
    assert about[b"user.s3.tag.for"] == b"a b+c"
    assert {name for name in back["empty"][1] if b".tag." in name} == {b"user.s3.tag.keep"}
    assert back["empty"][1][b"user.s3.tag.keep"] == b"short"


async def test_former_versions_are_kept_and_can_be_written_again(emptied: S3Ground, tmp_path: Path) -> None:
    for name in ("versions", "versions-back"):
        bucket = emptied.bucket(name)
        bucket.fs.call_s3("create_bucket", Bucket=name)
        bucket.call("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
    data, back = emptied.bucket("versions"), emptied.bucket("versions-back")
    for body in (b"first", b"second", b"third"):
        data.call("put_object", Key="a/x", Body=body, Metadata={"is": body.decode()})
    data.call("put_object", Key="gone", Body=b"gone", Tagging="keep=long")
    data.call("delete_object", Key="gone")
    async with source_site.running(tmp_path, "s3", emptied.settings()) as site:
        asked = {"server": "main", "bucket": "versions", "versions": True}
        await site.done("backup", options=asked, init=True)
        made = await site.done("backup", options=asked)
        await site.done("restore", options={"server": "main", "bucket": "versions-back", "versions": True})
    assert made.result
    assert made.result.bytes_stored < 100_000
    assert made.result.files_unmodified == made.result.files == 5
    assert back.read("a/x") == b"third"
    former = [back.read(one.key, VersionId=one.id) for one in back.former_versions("") if not one.deleted]
    assert sorted(former) == [b"first", b"gone", b"second"]
    assert [one.key for one in back.former_versions("") if one.deleted] == ["gone"]
    with pytest.raises(FileNotFoundError):
        back.read("gone")


async def test_former_versions_overwrite_nothing_in_a_bucket_that_keeps_none(emptied: S3Ground, tmp_path: Path) -> None:
    emptied.bucket("kept").fs.call_s3("create_bucket", Bucket="kept")
    data, back = emptied.bucket("kept"), emptied.bucket(BACK)
    data.call("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
    for body in (b"first", b"second"):
        data.call("put_object", Key="x", Body=body)
    back.call("put_object", Key="x", Body=b"another's")
    async with source_site.running(tmp_path, "s3", emptied.settings()) as site:
        await site.done("backup", options={"server": "main", "bucket": "kept", "versions": True}, init=True)
        options = {**emptied.restore_options(True), "versions": True}
        record = await site.ended("restore", options=options, attempts=1)
        assert record.error
        assert record.error.code == "bad-options"
        assert back.read("x") == b"another's"
        await site.done("restore", options={**options, "overwrite": True})
    assert back.read("x") == b"second"


async def test_the_secret_is_read_by_no_thread_that_others_wait_for(tmp_path: Path) -> None:
    settings = {"main": {"key": "key", "secret": {"file": str(tmp_path / "none")}}}
    source = S3Source(S3Options(server="main", bucket=DATA), Site("site", {"s3": settings}))
    assert source.claims() == ["s3+server://main/data"]
    with pytest.raises(SnappyError, match="none"):
        async with source.snap():
            pass


@pytest.mark.long
async def test_a_server_that_is_lost_amid_a_backup_ends_it(tmp_path: Path) -> None:
    """Whether more was to be asked of it, or only what it had said was to be read."""
    with Weed.running(tmp_path) as weed:
        ground, found = S3Ground(weed, tmp_path), list[Entry]()
        for number in range(3 * TOGETHER):
            ground._write(f"many/{number:03}", 10, number)
        ground._write("few/1", 10, 1)
        many, few = (_exported(ground, prefix) for prefix in ("many", "few"))
        for _ in range(TOGETHER):
            found.append(await asyncio.to_thread(next, many))
        assert (await asyncio.to_thread(next, few)).node.name == b"1"
        weed.stop()
        for entries in (many, few):
            with pytest.raises(SourceUnavailable):
                await asyncio.to_thread(found.extend, entries)
    assert not any(entry.error for entry in found)


def _exported(ground: S3Ground, prefix: str) -> Iterator[Entry]:
    options = S3Options(server="main", bucket=DATA, prefix=prefix)
    entries = S3Source(options, Site("site", {"s3": ground.settings()})).export(None)
    return (entry for entry in entries if entry.node.type == "file")
