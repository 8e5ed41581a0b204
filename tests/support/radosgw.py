"""Ceph's object gateway before a cluster of one node: its S3 and its Swift."""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import fsspec

from tests.support import ceph
from tests.support.ceph import Ceph
from tests.support.mortal import die_with_parent
from tests.support.places import Place
from tests.support.ports import held_ports

START_SECONDS = 90.0


class Gateway:
    """Made by :func:`running`; it may be stopped and started again."""

    def __init__(self, cluster: Ceph, port: int) -> None:
        self._cluster, self._port = cluster, port
        self.access_key, self.secret_key = secrets.token_hex(8), secrets.token_hex(16)
        self.endpoint = f"http://127.0.0.1:{port}"
        self.start()
        cluster.run(
            *("radosgw-admin", "user", "create", "--uid=snappy", "--display-name=snappy"),
            *(f"--access-key={self.access_key}", f"--secret={self.secret_key}"),
        )

    @property
    def options(self) -> dict[str, Any]:
        return {"key": self.access_key, "secret": self.secret_key, "endpoint_url": self.endpoint}

    def place(self) -> Place:
        """Below a prefix in a new bucket."""
        bucket = self._bucket()
        environment = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        url = f"s3:{self.endpoint}/{bucket}/site1"
        return Place({"url": f"s3://{bucket}/site1", **self.options}, url, environment)

    def swift_place(self) -> Place:
        """The same by Swift's API, where a bucket is a container; it logs in by version 1."""
        name, admin = "--subuser=snappy:swift", "radosgw-admin"
        self._cluster.run(admin, "subuser", "create", "--uid=snappy", name, "--access=full")
        self._cluster.run(admin, "key", "create", name, "--key-type=swift", f"--secret={self.secret_key}")
        container, auth_url, user = self._bucket(), f"{self.endpoint}/auth/v1.0", "snappy:swift"
        target = {
            "url": f"swift://{container}/site1",
            "auth_url": auth_url,
            "username": user,
            "password": self.secret_key,
        }
        environment = {"ST_AUTH": auth_url, "ST_USER": user, "ST_KEY": self.secret_key}
        return Place(target, f"swift:{container}:/site1", environment)

    def add_storage_class(self, name: str) -> None:
        """The gateway learns of it as it starts."""
        of_class = ("--placement-id=default-placement", f"--storage-class={name}")
        self._cluster.run("radosgw-admin", "zonegroup", "placement", "add", "--rgw-zonegroup=default", *of_class)
        pool = "--data-pool=default.rgw.cold.data"
        self._cluster.run("radosgw-admin", "zone", "placement", "add", "--rgw-zone=default", *of_class, pool)
        self.stop()
        self.start()

    def _bucket(self) -> str:
        bucket = f"bucket-{secrets.token_hex(6)}"
        fsspec.filesystem("s3", skip_instance_cache=True, **self.options).mkdir(bucket)
        return bucket

    def start(self) -> None:
        environment = {**os.environ, "CEPH_CONF": str(self._cluster.folder / "ceph.conf")}
        command = ["radosgw", "-f", "-n", "client.admin", f"--rgw_frontends=beast endpoint=127.0.0.1:{self._port}"]
        self._process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent
        )
        deadline = monotonic() + START_SECONDS
        while not self._answers():
            assert monotonic() < deadline, (self._cluster.folder / "client.admin.log").read_text()[-3000:]
            sleep(0.1)

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self.endpoint, timeout=5).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def in_short_folder() -> Iterator[Gateway]:
    """With a cluster in a folder of its own, which goes with it."""
    with tempfile.TemporaryDirectory(prefix="rgw") as short, running(Path(short) / "c") as gateway:
        yield gateway


@contextmanager
def running(folder: Path) -> Iterator[Gateway]:
    """With a cluster whose files lie in ``folder``, whose path is to be short."""
    with ceph.running(folder) as cluster, held_ports(1) as (port,):
        gateway = Gateway(cluster, port)
        try:
            yield gateway
        finally:
            gateway.stop()
