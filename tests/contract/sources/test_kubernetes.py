"""The plug-in ``kubernetes`` in the contract, against a real API server."""

from __future__ import annotations

import base64
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snappy.errors import SourceDenied
from snappy.sources.plugins.kubernetes import KubernetesOptions, KubernetesSource
from snappy.sources.site import Site
from tests.support import kubernetes, source_site
from tests.support.kubernetes_ground import DATA, KubernetesGround
from tests.support.source_contract import Ground, SourceContract

pytestmark = pytest.mark.kubernetes

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ANY = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with kubernetes.running(tmp_path_factory.mktemp("kubernetes")) as server:
        yield KubernetesGround(server)


class TestKubernetes(SourceContract):
    """All that is asked of it."""


def definition(plural: str) -> dict[str, Any]:
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": ANY}}
    names = {"plural": plural, "singular": plural[:-1], "kind": plural[:-1].capitalize()}
    spec = {"group": "shop.example.org", "names": names, "scope": "Namespaced", "versions": [version]}
    return {"metadata": {"name": f"{plural}.shop.example.org"}, "spec": spec}


def deployment() -> dict[str, Any]:
    labels = {"app": "web"}
    container = {"name": "web", "image": "web:1", "ports": [{"containerPort": 80}]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": labels}, "template": template}}


def objects() -> dict[str, dict[str, Any]]:
    """To be made, by the path of their kind."""
    space = f"namespaces/{DATA}"
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "1", "controller": True}
    pod = {"containers": [{"name": "web", "image": "web:1"}], "nodeName": "node-1"}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": "disk"}
    service = {"selector": {"app": "web"}, "ports": [{"port": 80, "nodePort": 30080}], "type": "NodePort"}
    subject = {"kind": "ServiceAccount", "name": "web", "namespace": DATA}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "web"}
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
    return {
        f"/api/v1/{space}/serviceaccounts": {"metadata": {"name": "web"}},
        f"/api/v1/{space}/services": {"metadata": {"name": "web"}, "spec": service},
        f"/api/v1/{space}/persistentvolumeclaims": {"metadata": {"name": "disk"}, "spec": claim},
        f"/apis/apps/v1/{space}/deployments": deployment(),
        f"/api/v1/{space}/pods": {"metadata": {"name": "web-1", "ownerReferences": [owner]}, "spec": pod},
        f"/apis/rbac.authorization.k8s.io/v1/{space}/roles": {"metadata": {"name": "web"}, "rules": [rule]},
        f"/apis/rbac.authorization.k8s.io/v1/{space}/rolebindings": {
            "metadata": {"name": "web"},
            "subjects": [subject],
            "roleRef": role,
        },
    }


async def test_all_kinds_come_back_in_another_namespace_cleaned_but_for_what_controllers_make(
    ground: KubernetesGround, tmp_path: Path
) -> None:
    ground.wipe()
    ask = ground.server.ask
    for path, body in objects().items():
        ask("POST", path, body)
    async with source_site.running(tmp_path, "kubernetes", ground.settings()) as site:
        await site.done("backup", options=ground.options(), init=True)
        into = {"server": "main", "namespaces": {DATA: "made-anew"}}
        await site.done("restore", options={**into, "dry_run": True})
        with pytest.raises(urllib.error.HTTPError, match="404"):
            ask("GET", "/api/v1/namespaces/made-anew")
        await site.done("restore", options=into)
        await site.done("restore", options=into)
    assert ask("GET", "/api/v1/namespaces/made-anew")["metadata"]["labels"]["team"] == "shop"
    for path in objects():
        found = [one["metadata"]["name"] for one in ask("GET", path.replace(f"/{DATA}/", "/made-anew/"))["items"]]
        assert found == ([] if path.endswith("pods") else [objects()[path]["metadata"]["name"]]), path
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/made-anew/rolebindings/web"
    assert ask("GET", rbac)["subjects"][0]["namespace"] == "made-anew"
    assert "volumeName" not in ask("GET", "/api/v1/namespaces/made-anew/persistentvolumeclaims/disk")["spec"]
    there = ask("GET", f"/api/v1/namespaces/{DATA}/services/web")["spec"]
    back = ask("GET", "/api/v1/namespaces/made-anew/services/web")["spec"]
    assert back["clusterIP"] != there["clusterIP"]


async def test_what_differs_is_said_before_anything_is_changed_and_taken_over_on_request(
    ground: KubernetesGround, tmp_path: Path
) -> None:
    ground.wipe()
    maps = f"/api/v1/namespaces/{DATA}/configmaps"
    for name in ("a", "b", "c"):
        ground.server.ask("POST", maps, {"metadata": {"name": name}, "data": {"is": "old"}})
    async with source_site.running(tmp_path, "kubernetes", ground.settings()) as site:
        await site.done("backup", options=ground.options(), init=True)
        ground.server.ask("DELETE", f"{maps}/a")
        ground.server.ask("PUT", f"{maps}/c", {"metadata": {"name": "c"}, "data": {"is": "new"}})
        refused = await site.ended("restore", options=ground.restore_options(False), attempts=1)
        assert refused.error
        assert "1 objects are there and differ: ConfigMap data/c" in refused.error.message
        assert [name for _, name in ground.content(False)] == ["b", "c"]
        await site.done("restore", options={**ground.restore_options(False), "overwrite": True})
    assert [data["is"] for data in ground.content(False).values()] == ["old"] * 3


async def test_kinds_of_ones_own_are_defined_before_their_objects(ground: KubernetesGround, tmp_path: Path) -> None:
    ground.wipe()
    ask = ground.server.ask
    ask("POST", DEFINITIONS, definition("crates"))
    crates = f"/apis/shop.example.org/v1/namespaces/{DATA}/crates"
    body = {"apiVersion": "shop.example.org/v1", "kind": "Crate", "metadata": {"name": "one"}, "spec": {"size": 7}}
    await kubernetes.eventually(lambda: ask("POST", crates, body))
    async with source_site.running(tmp_path, "kubernetes", ground.settings()) as site:
        await site.done("backup", options={"server": "main", "exclude_volumes": ["*"]}, init=True)
        ask("DELETE", f"{DEFINITIONS}/crates.shop.example.org")
        await kubernetes.eventually(lambda: _is_gone(ground, f"{DEFINITIONS}/crates.shop.example.org"))
        restored = await site.done("restore", options={"server": "main", "overwrite": True})
    assert restored.result
    assert ask("GET", f"{crates}/one")["spec"] == {"size": 7}


async def test_a_kubeconfig_says_where_the_cluster_is_and_who_one_is(ground: KubernetesGround, tmp_path: Path) -> None:
    ground.wipe()
    folder = ground.server.folder
    content = {name: base64.b64encode((folder / name).read_bytes()).decode() for name in ("cert", "key")}
    ways = [
        {"client-certificate": "cert", "client-key": "key"},
        {"client-certificate-data": content["cert"], "client-key-data": content["key"]},
        {"token": kubernetes.TOKEN},
        {"tokenFile": kubernetes.TOKEN},
    ]
    for user in ways:
        settings = {"default": ground.server.kubeconfig(**user)}
        source = KubernetesSource(
            KubernetesOptions(namespaces=(DATA,)), Site("site", {"kubernetes": settings}, str(tmp_path))
        )
        async with source.snap() as frozen:
            assert frozen.manifests, user
    nobody = Site("site", {"kubernetes": {"default": ground.server.kubeconfig()}}, str(tmp_path))
    with pytest.raises(SourceDenied):
        async with KubernetesSource(KubernetesOptions(namespaces=(DATA,)), nobody).snap():
            pass


def _is_gone(ground: KubernetesGround, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        ground.server.ask("GET", path)
