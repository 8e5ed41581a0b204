"""What holds on an S3 server under the file server: whole objects, one winner, nothing left of a discarded one."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import fsspec
import pytest
from botocore.loaders import Loader

from snappy import config
from snappy.bus.connection import Bus
from snappy.bus.failures import to_wire
from snappy.bus.fileserver import FileServer
from snappy.bus.filesystem import SnappyFileSystem
from snappy.bus.grants import Grant
from snappy.errors import AlreadyExists, AttemptOver, NoSpace
from snappy.targets.drafts import SINGLE_PUT, SPOOL, Body
from snappy.targets.opening import open_storage, open_target
from snappy.targets.s3_session import SERVICES, session
from tests.support.disks import disk
from tests.support.natsserver import NatsServer
from tests.support.weed import Weed
from tests.support.wire_proxy import WireProxy, wire_proxy

pytestmark = pytest.mark.s3


@pytest.fixture
def bucket(weed: Weed) -> str:
    name = f"vault-{secrets.token_hex(4)}"
    fsspec.filesystem("s3", skip_instance_cache=True, **weed.options).mkdir(name)
    return name


@pytest.fixture
async def fs(stock_nats: NatsServer, weed: Weed, bucket: str) -> AsyncIterator[SnappyFileSystem]:
    target = f"vault-{secrets.token_hex(4)}"
    bus = await Bus.connect(config.Nats(url=stock_nats.url), name="target", user=target)
    server = FileServer(bus, open_target(f"s3://{bucket}", weed.options, rights="rlwWd"), target=target)
    await server.start()
    caller = SnappyFileSystem(target, stock_nats.url, "site1", asynchronous=True)
    yield caller
    await caller.aclose()
    await server.close()
    await bus.drain()


def stored(weed: Weed, bucket: str) -> dict[str, int]:
    """What another program finds in the bucket."""
    found = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False, **weed.options).find(
        bucket, detail=True
    )
    return {name.removeprefix(f"{bucket}/"): item["size"] for name, item in found.items()}


@pytest.mark.parametrize("size", [0, 1 << 20, (16 << 20) + 7, SPOOL + 5, SINGLE_PUT + 11])
async def test_an_object_of_any_size_is_stored_whole(fs: SnappyFileSystem, weed: Weed, bucket: str, size: int) -> None:
    content = os.urandom(size)
    name = f"data/{hashlib.sha256(content).hexdigest()}"
    await fs._pipe_file(name, content, mode="create")
    assert stored(weed, bucket) == {name: size}
    assert await fs._cat_file(name) == content
    assert await fs._cat_file(name, size // 2, size // 2 + 100) == content[size // 2 :][:100]


class CutThrice(WireProxy):
    """Cuts the first three connections that have carried ``CUT`` bytes; later ones live."""

    CUT, TIMES = 5 << 20, 3
    cuts = 0

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        carried = 0
        while data := await reader.read(1 << 16):
            carried += len(data)
            if carried > self.CUT and self.cuts < self.TIMES:
                self.cuts += 1
                break
            writer.write(data)
            await writer.drain()
        writer.close()


def test_a_put_that_breaks_off_is_sent_whole_again(weed: Weed, bucket: str, tmp_path: Path) -> None:
    content = os.urandom(16 << 20)
    with wire_proxy(weed.endpoint, CutThrice) as proxy:
        options = weed.options | {"endpoint_url": proxy.url.replace("nats:", "http:")}
        through = fsspec.filesystem("s3", skip_instance_cache=True, **options)
        (tmp_path / "whole").write_bytes(content)
        with Body(tmp_path / "whole") as body:
            through.pipe_file(f"{bucket}/x", body, chunksize=SINGLE_PUT)
        assert isinstance(proxy, CutThrice)
        assert proxy.cuts == proxy.TIMES
    assert fsspec.filesystem("s3", skip_instance_cache=True, **weed.options).cat_file(f"{bucket}/x") == content


@pytest.mark.loop
def test_a_full_folder_for_temporary_files_is_said_and_harms_nothing(
    weed: Weed, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, content = open_target(f"s3://{bucket}", weed.options), os.urandom(24 << 20)
    with disk(tmp_path, 16 << 20) as small:
        monkeypatch.setattr(tempfile, "tempdir", str(small.place))
        room = small.room()
        with pytest.raises(NoSpace, match="folder for temporary files") as caught:
            files.pipe_file("keys/large", content)
        assert "TMPDIR" in to_wire(caught.value).hint
        assert small.room() > room - (1 << 20), "what was written of it is gone"
        assert stored(weed, bucket) == {}
        files.pipe_file("keys/large", content[: 8 << 20])
    monkeypatch.setattr(tempfile, "tempdir", None)
    files.pipe_file("keys/all", content)
    assert stored(weed, bucket) == {"keys/large": 8 << 20, "keys/all": 24 << 20}


async def test_of_many_that_create_one_wins(fs: SnappyFileSystem, weed: Weed, bucket: str) -> None:
    contents = [os.urandom(2 << 20) for _ in range(6)]
    ends = await asyncio.gather(
        *(fs._pipe_file("config", content, mode="create") for content in contents), return_exceptions=True
    )
    won = [content for content, end in zip(contents, ends, strict=True) if end is None]
    assert len(won) == 1
    assert all(isinstance(end, AlreadyExists) for end in ends if end is not None)
    assert await fs._cat_file("config") == won[0]


async def test_a_discarded_object_leaves_nothing(fs: SnappyFileSystem, weed: Weed, bucket: str) -> None:
    upload = await fs.objects.open_upload("x", "create")
    await upload.write(os.urandom(3 << 20))
    await upload.discard()
    assert stored(weed, bucket) == {}


async def test_another_s_change_shows_at_once(fs: SnappyFileSystem, weed: Weed, bucket: str) -> None:
    other = fsspec.filesystem("s3", skip_instance_cache=True, **weed.options)
    assert await fs._ls("") == []
    other.pipe_file(f"{bucket}/snapshots/x", b"1")
    assert await fs._find("") == ["snapshots/x"]
    other.rm_file(f"{bucket}/snapshots/x")
    assert not await fs._exists("snapshots/x")
    assert await fs._find("") == []


@pytest.mark.parametrize("size", [1 << 20, SINGLE_PUT + 11])
async def test_what_cannot_arrive_before_its_grant_runs_out_never_shows(weed: Weed, bucket: str, size: int) -> None:
    now = [100.0]
    grant = Grant("job", 1, "site", "vault", "rlw", expires=160.0)
    guarded = open_target(f"s3://{bucket}", weed.options).asking(lambda _right: grant)
    guarded._clock = lambda: now[0]
    content = os.urandom(size)
    name = f"data/{hashlib.sha256(content).hexdigest()}"
    with guarded.write(name) as draft:
        draft.write(content)
        now[0] = 160.0 - 1e-4
        with pytest.raises(AttemptOver):
            await asyncio.to_thread(draft.commit)
    assert stored(weed, bucket) == {}
    now[0] = 100.0
    await asyncio.to_thread(guarded.pipe_file, name, content)
    assert stored(weed, bucket) == {name: size}


def test_a_client_keeps_the_addresses_of_s3_alone(weed: Weed) -> None:
    made = session()
    endpoints = made.get_component("data_loader").load_data("endpoints")
    assert {name for part in endpoints["partitions"] for name in part["services"]} <= SERVICES
    assert "us-east-1" in endpoints["partitions"][0]["services"]["s3"]["endpoints"]
    assert type(open_target("s3://x", weed.options).fs.session.get_component("data_loader")) is not Loader


def sockets() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return {name for name in found if name.startswith("socket:")}


async def test_a_client_that_is_dropped_closes_its_sockets(weed: Weed, bucket: str) -> None:
    """Where another loop runs than its own."""
    before = sockets()
    fs, root = await asyncio.to_thread(open_storage, f"s3://{bucket}", weed.options)
    await asyncio.to_thread(fs.ls, root)
    opened = sockets() - before
    assert opened
    del fs
    async with asyncio.timeout(10):
        while opened & sockets():
            gc.collect()
            await asyncio.sleep(0.05)
