"""A namespace of Kubernetes with its volumes on Ceph, lost and brought back step by step, as docs/plugins.md says."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from snappy.jobs.messages import Result
from snappy.jobs.states import State
from tests.support import fake_kubernetes, source_site
from tests.support.ceph import POOL, Ceph, running
from tests.support.kubernetes import TOKEN, KubernetesServer
from tests.support.live_images import FILES, Writer, as_files, expect_sound, mounted
from tests.support.loops import loop
from tests.support.source_site import SourceSite

pytestmark = [pytest.mark.ceph, pytest.mark.long, pytest.mark.loop, pytest.mark.fuse]

SIZE = 96 << 20
SPACE = "/api/v1/namespaces/shop"
CLAIMS = f"{SPACE}/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
DEPLOYMENTS = "/apis/apps/v1/namespaces/shop/deployments"
OBJECTS = {"server": "main", "namespaces": {"shop": "shop"}}
IMAGE = "/rbd/default/persistentvolumeclaims/shop/data.img"


class Cluster:
    """An API with what a provisioner does for it."""

    def __init__(self, api: KubernetesServer, ceph: Ceph) -> None:
        self.api, self._ceph = api, ceph

    def provision(self, claim: str) -> str:
        """A volume for the claim. Returns its image's name."""
        handle = str(uuid.uuid4())
        image = f"csi-vol-{handle}"
        self._ceph.create(image, SIZE)
        about = {"pool": POOL, "imageName": image}
        csi = {"driver": "rook-ceph.rbd.csi.ceph.com", "volumeHandle": handle, "volumeAttributes": about}
        self.bind(claim, {"csi": csi})
        return image

    def bind(self, claim: str, spec: dict[str, Any]) -> None:
        name = f"pvc-{uuid.uuid4()}"
        notes = {"pv.kubernetes.io/provisioned-by": "rook-ceph.rbd.csi.ceph.com"}
        self.api.ask("POST", VOLUMES, {"metadata": {"name": name, "annotations": notes}, "spec": spec})
        found = self.api.ask("GET", f"{CLAIMS}/{claim}")
        self.api.ask("PUT", f"{CLAIMS}/{claim}", found | {"spec": found["spec"] | {"volumeName": name}})

    def lose_all(self) -> None:
        for path in (CLAIMS, DEPLOYMENTS, VOLUMES):
            self.api.ask("DELETE", path)
        self.api.ask("DELETE", SPACE)
        self._ceph.remove_all()


def fill(api: KubernetesServer) -> None:
    api.ask("POST", "/api/v1/namespaces", {"metadata": {"name": "shop"}})
    for name in ("data", "shared", "cache", "waiting"):
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": str(SIZE)}}}
        api.ask("POST", CLAIMS, {"metadata": {"name": name}, "spec": spec})
    api.ask("POST", DEPLOYMENTS, {"metadata": {"name": "web"}, "spec": {"replicas": 2}})


@contextmanager
def written_to(ceph: Ceph, image: str, folder: Path) -> Iterator[Writer]:
    """The image has a file system, to which files are written as fast as it goes."""
    with as_files(ceph, folder / "images") as images, loop(images / image) as device:
        subprocess.run(["mkfs.ext4", "-q", "-F", device], check=True)
        with mounted(device, folder / "live") as place:
            writer = Writer(place)
            writer.start()
            try:
                yield writer
            finally:
                writer.stop()


async def backed_up(site: SourceSite, **options: Any) -> Result:
    chosen = {"server": "main", "namespaces": ["shop"], "exclude_volumes": ["*/cache"]} | options
    record = await site.ended("backup", options=chosen, init=True)
    assert record.state is State.SUCCEEDED, record.error
    assert record.result
    return record.result


def told(result: Result) -> dict[str, str]:
    return {Path(warning.path).stem: warning.message for warning in result.warnings}


async def test_a_namespace_comes_back_with_what_is_on_its_volumes(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder)) as ceph,
        fake_kubernetes.running(tmp_path) as api,
    ):
        cluster = Cluster(api, ceph)
        fill(api)
        image = cluster.provision("data")
        cluster.bind("shared", {"nfs": {"path": "/shared"}})
        cluster.bind("cache", {"nfs": {"path": "/cache"}})
        rbd = ceph.settings(kubernetes=api.url, service_account=str(tmp_path))
        async with source_site.running(
            tmp_path, "kubernetes", {"main": api.settings()}, beside={"rbd": {"default": rbd}}
        ) as site:
            with written_to(ceph, image, tmp_path) as writer:
                only_objects = await backed_up(site)
                first = await backed_up(site, volumes="default")
                while writer.written < 2 * FILES:
                    await asyncio.sleep(0.1)
                second = await backed_up(site, volumes="default")
            assert told(only_objects).keys() == {"data", "shared"}, "by name"
            assert told(first) == told(second) == {"shared": told(first)["shared"]}
            assert "is no RBD image" in told(first)["shared"]
            assert second.paths == ["kubernetes://main/shop", "rbd+pvc://default/shop"]
            quiet = [await backed_up(site, volumes="default") for _ in range(2)]
            assert quiet[-1].bytes_read < SIZE // 100, "the snapshot that was kept says what changed"
            cluster.lose_all()

            kinds = ["namespaces", "persistentvolumeclaims"]
            await site.done("restore", options=OBJECTS | {"kinds": kinds}, snapshot=second.snapshot)
            assert api.ask("GET", DEPLOYMENTS)["items"] == [], "nothing runs yet"
            image = cluster.provision("data")
            volume = {"pvc": "shop/data", "overwrite": True}
            await site.done("restore", plugin="rbd", options=volume, include=[IMAGE], snapshot=second.snapshot)
            await site.done("restore", options=OBJECTS, snapshot=second.snapshot)
        assert [one["metadata"]["name"] for one in api.ask("GET", DEPLOYMENTS)["items"]] == ["web"]
        assert api.ask("GET", f"{CLAIMS}/data")["spec"]["volumeName"], "still bound to the volume that was restored"
        assert ceph.names() == [image]
        copy = tmp_path / "copy"
        with as_files(ceph, tmp_path / "restored") as images:
            subprocess.run(["cp", "--sparse=always", images / image, copy], check=True)
        assert expect_sound(copy, tmp_path / "back") == FILES
