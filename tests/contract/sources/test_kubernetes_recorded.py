"""The plug-in ``kubernetes`` in the contract, against a stand-in for the API; ``test_kubernetes`` has the real one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snappy.errors import BadOptions, ProgramMissing, SourceError, SourceMissing
from snappy.repository.entries import Entry, Node
from snappy.sources.plugins.kubernetes import KubernetesOptions, KubernetesRestore, KubernetesSource
from snappy.sources.site import Site
from tests.support import fake_kubernetes
from tests.support.kubernetes_ground import DATA, KubernetesGround
from tests.support.source_contract import Ground, SourceContract


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with fake_kubernetes.running(tmp_path_factory.mktemp("kubernetes")) as server:
        yield KubernetesGround(server)


class TestKubernetesRecorded(SourceContract):
    """All that is asked of it."""


async def test_restic_users_find_manifests_by_namespace_and_kind(ground: KubernetesGround, tmp_path: Path) -> None:
    ground.wipe()
    ask = ground.server.ask
    deployment = {
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"replicas": 2},
        "status": {"ready": 1},
    }
    ask("POST", f"/apis/apps/v1/namespaces/{DATA}/deployments", deployment)
    ask("POST", "/api/v1/persistentvolumes", {"metadata": {"name": "disk"}, "spec": {"claimRef": {"uid": "1"}}})
    ask("POST", f"/api/v1/namespaces/{DATA}/configmaps", {"metadata": {"name": "other"}, "data": {}})
    site = Site("site", {"kubernetes": ground.settings()}, str(tmp_path))
    whole = KubernetesSource(KubernetesOptions(server="main"), site)
    assert whole.claims() == ["kubernetes://main"]
    async with whole.snap() as frozen:
        entries = {entry.path.decode(): entry for entry in whole.export(frozen)}
    top = "/kubernetes/main"
    files = {path for path, entry in entries.items() if entry.node.type == "file"}
    assert files == {
        f"{top}/about.json",
        f"{top}/cluster/namespaces/back.json",
        f"{top}/cluster/namespaces/data.json",
        f"{top}/cluster/persistentvolumes/disk.json",
        f"{top}/namespaces/data/configmaps/other.json",
        f"{top}/namespaces/data/deployments.apps/web.json",
    }
    labelled = KubernetesSource(KubernetesOptions(server="main", namespaces=(DATA,), kinds=("deployments",)), site)
    assert labelled.claims() == ["kubernetes://main/data"]
    async with labelled.snap() as frozen:
        found = {entry.path.decode(): entry for entry in labelled.export(frozen) if entry.node.type == "file"}
        opened = found[f"{top}/namespaces/data/deployments.apps/web.json"].open
        assert opened
        manifest = json.loads(opened().read())
    assert manifest == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": DATA, "labels": {"app": "web"}},
        "spec": {"replicas": 2},
    }
    assert set(found) == {
        f"{top}/about.json",
        f"{top}/cluster/namespaces/data.json",
        f"{top}/namespaces/data/deployments.apps/web.json",
    }
    for path in ("apis/apps/v1/namespaces/data/deployments/web", "api/v1/persistentvolumes/disk"):
        ask("DELETE", f"/{path}")


async def test_who_may_restore_one_namespace_touches_no_other(ground: KubernetesGround, tmp_path: Path) -> None:
    site = Site("site", {"kubernetes": ground.settings()}, str(tmp_path))
    whole = KubernetesRestore(server="main")
    assert KubernetesSource.restore_claims(whole, site) == ["kubernetes://main"]
    one = KubernetesRestore(server="main", namespaces={"shop": "back"})
    claims = KubernetesSource.restore_claims(one, site)
    assert claims == ["kubernetes://main/back"]
    sink = KubernetesSource.import_(one, claims, site)
    for text in (
        '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs", "namespace": "other"}}',
        '{"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "disk"}}',
        '{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}',
        '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine", "namespace": "shop"}}',
    ):
        sink.receive(b"/kubernetes/main/x.json", Node(name=b"x.json", type="file"), iter([text.encode()]))
    assert sink.finish() == []
    sink.close()
    assert [name for _, name in ground.content(True)] == ["mine"]
    assert [one["metadata"]["name"] for one in ground.server.ask("GET", "/api/v1/namespaces")["items"]] == [
        "back",
        "data",
    ]


async def test_what_is_no_manifest_and_what_the_cluster_does_not_know_is_said(
    ground: KubernetesGround, tmp_path: Path
) -> None:
    site = Site("site", {"kubernetes": ground.settings()}, str(tmp_path))
    options = KubernetesRestore(server="main")
    node = Node(name=b"x.json", type="file")
    sink = KubernetesSource.import_(options, ["kubernetes://main"], site)
    assert sink.receive(b"/srv/x.json", node, iter([b"[]"])) == []
    with pytest.raises(SourceError, match=r"has no manifests"):
        sink.finish()
    with pytest.raises(SourceError, match=r"is no manifest"):
        sink.receive(b"/kubernetes/x.json", node, iter([b"[]"]))
    text = b'{"apiVersion": "no.org/v1", "kind": "Crate", "metadata": {"name": "one", "namespace": "data"}}'
    sink.receive(b"/kubernetes/x.json", node, iter([text]))
    with pytest.raises(SourceError, match=r"the cluster has no Crate of no.org/v1"):
        sink.finish()
    sink.close()


async def test_what_is_on_volumes_comes_too_or_is_missed_by_name(ground: KubernetesGround, tmp_path: Path) -> None:
    ground.wipe()
    claims, volumes = f"/api/v1/namespaces/{DATA}/persistentvolumeclaims", "/api/v1/persistentvolumes"
    made = {"disk": {"rbd": {"image": "one"}}, "shared": {"nfs": {"path": "/"}}, "gone": None, "waiting": None}
    for name, spec in made.items():
        volume = {} if name == "waiting" else {"volumeName": f"pv-{name}"}
        ground.server.ask("POST", claims, {"metadata": {"name": name}, "spec": volume})
        if spec:
            ground.server.ask("POST", volumes, {"metadata": {"name": f"pv-{name}"}, "spec": spec})
    ceph = {"main": {"conf": str(tmp_path / "none")}}
    site = Site("site", {"kubernetes": ground.settings(), "rbd": ceph}, str(tmp_path))

    async def missed(**options: Any) -> dict[str, str]:
        asked = KubernetesOptions(server="main", namespaces=(DATA,), **options)
        source = KubernetesSource(asked, site)
        assert source.claims() == ["kubernetes://main/data", *(["rbd+pvc://main/data"] if asked.volumes else [])]
        async with source.snap() as frozen:
            found = [one for one in source.export(frozen) if isinstance(one, Entry)]
        return {one.path.decode().rpartition("/")[2]: one.warning for one in found if one.warning}

    assert set(await missed()) == {"disk.json", "shared.json", "gone.json"}
    assert await missed(exclude_volumes=("data/*",)) == {}
    told = await missed(volumes="main", exclude_volumes=("data/disk",))
    assert {name: text.rpartition(": ")[2] for name, text in told.items()} == {
        "shared.json": "the volume pv-shared is no RBD image",
        "gone.json": "the volume pv-gone is gone",
    }
    with pytest.raises((SourceMissing, ProgramMissing)):  # the image is asked for, and there is no Ceph
        await missed(volumes="main")
    with pytest.raises(BadOptions, match="no rbd named 'other'"):
        KubernetesSource(KubernetesOptions(server="main", volumes="other"), site)
    assert KubernetesSource(KubernetesOptions(server="main", volumes="main"), site).claims() == [
        "kubernetes://main",
        "rbd+pvc://main",
    ]
    for path in (claims, volumes):
        ground.server.ask("DELETE", path)
