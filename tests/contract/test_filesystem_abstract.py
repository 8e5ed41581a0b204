"""fsspec's own suite for filesystems, over the bus: a stock nats-server (1 MiB max_payload) between the client and
memory, a local folder, and S3.

Left out: nothing of ``AbstractCopyTests``, ``AbstractGetTests``, ``AbstractPutTests``, ``AbstractPipeTests`` and
``AbstractOpenTests``. The functions in ``fsspec.tests.abstract.mv`` take no filesystem; they test ``file://`` alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import fsspec.tests.abstract as abstract
import pytest

from snappy.bus.filesystem import SnappyFileSystem
from snappy.targets.opening import open_target
from snappy.targets.policy import PolicyFileSystem
from tests.support.fileservers import ALL_RIGHTS, served
from tests.support.natsserver import NatsServer
from tests.support.weed import Weed


class OverTheBus(abstract.AbstractFixtures):
    """What a backing filesystem has to say to join: ``files``."""

    @pytest.fixture(scope="class")
    @classmethod
    def fs(cls, files: PolicyFileSystem, stock_nats: NatsServer) -> Iterator[SnappyFileSystem]:
        target = f"vault-{secrets.token_hex(4)}"
        with served(files, stock_nats.url, target):
            fs = SnappyFileSystem(target, stock_nats.url, caller="site1")
            yield fs
            fs.close()

    @pytest.fixture
    def fs_path(self) -> str:
        return f"tests/{secrets.token_hex(4)}"

    @pytest.fixture
    def fs_join(self) -> Any:
        return lambda *parts: "/".join(parts)


class InMemory(OverTheBus):
    @pytest.fixture(scope="class")
    @classmethod
    def files(cls) -> PolicyFileSystem:
        return open_target(f"memory://{secrets.token_hex(4)}", rights=ALL_RIGHTS)


class InFolder(OverTheBus):
    @pytest.fixture(scope="class")
    @classmethod
    def files(cls, tmp_path_factory: pytest.TempPathFactory) -> PolicyFileSystem:
        folder: Path = tmp_path_factory.mktemp("vault")
        return open_target(folder.as_uri(), rights=ALL_RIGHTS)


@pytest.mark.s3
class InBucket(OverTheBus):
    @pytest.fixture(scope="class")
    @classmethod
    def files(cls, weed: Weed) -> PolicyFileSystem:
        bucket = f"vault-{secrets.token_hex(4)}"
        fsspec.filesystem("s3", skip_instance_cache=True, **weed.options).mkdir(bucket)
        return open_target(f"s3://{bucket}/kept", weed.options, rights=ALL_RIGHTS)

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False


class TestCopyInMemory(InMemory, abstract.AbstractCopyTests):
    pass


class TestGetInMemory(InMemory, abstract.AbstractGetTests):
    pass


class TestPutInMemory(InMemory, abstract.AbstractPutTests):
    pass


class TestPipeInMemory(InMemory, abstract.AbstractPipeTests):
    pass


class TestOpenInMemory(InMemory, abstract.AbstractOpenTests):
    pass


class TestCopyInFolder(InFolder, abstract.AbstractCopyTests):
    pass


class TestGetInFolder(InFolder, abstract.AbstractGetTests):
    pass


class TestPutInFolder(InFolder, abstract.AbstractPutTests):
    pass


class TestPipeInFolder(InFolder, abstract.AbstractPipeTests):
    pass


class TestOpenInFolder(InFolder, abstract.AbstractOpenTests):
    pass


class TestCopyInBucket(InBucket, abstract.AbstractCopyTests):
    pass


class TestGetInBucket(InBucket, abstract.AbstractGetTests):
    pass


class TestPutInBucket(InBucket, abstract.AbstractPutTests):
    pass


class TestPipeInBucket(InBucket, abstract.AbstractPipeTests):
    pass


class TestOpenInBucket(InBucket, abstract.AbstractOpenTests):
    pass
