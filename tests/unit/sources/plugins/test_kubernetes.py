"""Reading a cluster and applying to it, against a stand-in for its API that does what real ones seldom do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from snappy.errors import AttemptOver, BadOptions, SourceError, SourceMissing, SourceUnavailable
from snappy.repository.entries import Entry, Node
from snappy.sources.plugins import kubernetes_api, kubernetes_sink
from snappy.sources.plugins.kubernetes import TRIES, KubernetesOptions, KubernetesRestore, KubernetesSource
from snappy.sources.plugins.kubernetes_volumes import Bound
from snappy.sources.plugins.rbd import RbdSource
from snappy.sources.site import Site
from tests.support import fake_kubernetes
from tests.support.fake_kubernetes import MADE, FakeKubernetes

MAPS = "/api/v1/namespaces/shop/configmaps"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
TOP = "/kubernetes/default/"
Object = dict[str, Any]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeKubernetes]:
    with fake_kubernetes.running(tmp_path) as server:
        for name in ("shop", "kube-system"):
            server.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        for name in ("a", "b", "c", "d", "e"):
            server.ask("POST", MAPS, {"metadata": {"name": name, "labels": {"is": name}}, "data": {"is": "here"}})
        yield server


@pytest.fixture
def site(api: FakeKubernetes, tmp_path: Path) -> Site:
    return Site("site", {"kubernetes": {"default": api.settings()}}, str(tmp_path / "work"))


async def kept(site: Site, **options: Any) -> dict[str, Object]:
    source = KubernetesSource(KubernetesOptions(**options), site)
    async with source.snap() as frozen:
        entries = [one for one in source.export(frozen) if isinstance(one, Entry) and one.open]
        return {one.path.decode().removeprefix(TOP): json.loads(one.open().read()) for one in entries if one.open}


def applied(site: Site, manifests: list[Object], **options: Any) -> list[str]:
    sink = KubernetesSource.import_(KubernetesRestore(**options), [], site)
    try:
        for manifest in manifests:
            content = iter([json.dumps(manifest).encode()])
            sink.receive(b"/kubernetes/default/x.json", Node(name=b"x.json", type="file"), content)
        return sink.finish()
    finally:
        sink.close()


def config(name: str, namespace: str = "shop", value: str = "here") -> Object:
    about = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": {"is": value}}


def one_of(kind: str, name: str, api_version: str = "v1", **fields: Any) -> Object:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}} | fields


def changes(api: FakeKubernetes) -> list[str]:
    return [one for one in api.store.asked if one.startswith("PATCH")]


# ---- reading -----------------------------------------------------------------------------------------------------


async def test_long_lists_are_asked_for_page_by_page(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_api, "PAGE", 2)
    found = await kept(site, namespaces=("shop",))
    assert [path for path in found if "configmaps" in path] == [f"namespaces/shop/configmaps/{n}.json" for n in "abcde"]


async def test_a_revision_that_is_forgotten_amid_it_begins_all_anew(api: FakeKubernetes, site: Site) -> None:
    whole = await kept(site)
    api.store.forgets = TRIES - 1
    assert await kept(site) == whole
    api.store.forgets = TRIES
    with pytest.raises(SourceUnavailable, match="forgets its revisions"):
        await kept(site)


async def test_what_is_written_while_it_is_read_is_not_in_it(
    api: FakeKubernetes, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = kubernetes_api.Api.revision

    def then_write(self: kubernetes_api.Api) -> str:
        revision = real(self)
        api.ask("DELETE", f"{MAPS}/a")
        api.ask("POST", MAPS, {"metadata": {"name": "later"}})
        return revision

    monkeypatch.setattr(kubernetes_api.Api, "revision", then_write)
    found = await kept(site, namespaces=("shop",))
    assert "namespaces/shop/configmaps/a.json" in found
    assert "namespaces/shop/configmaps/later.json" not in found


async def test_what_is_chosen_is_read_and_no_more(api: FakeKubernetes, site: Site) -> None:
    api.ask("POST", "/api/v1/namespaces/kube-system/configmaps", {"metadata": {"name": "theirs"}})
    api.ask("POST", "/api/v1/namespaces/shop/secrets", {"metadata": {"name": "word"}})
    api.ask("POST", "/api/v1/namespaces/shop/endpoints", {"metadata": {"name": "web"}})
    owner = {"kind": "Deployment", "name": "web", "controller": True}
    api.ask(
        "POST", "/api/v1/namespaces/shop/pods", {"metadata": {"name": "web-1", "ownerReferences": [owner]}, "spec": {}}
    )
    api.ask("POST", "/api/v1/persistentvolumes", {"metadata": {"name": "disk"}, "spec": {}})
    whole = set(await kept(site))
    maps = {f"namespaces/shop/configmaps/{name}.json" for name in "abcde"}
    secret, pod, volume = (
        "namespaces/shop/secrets/word.json",
        "namespaces/shop/pods/web-1.json",
        "cluster/persistentvolumes/disk.json",
    )
    needed = {"about.json", "cluster/namespaces/shop.json"}
    assert whole == maps | needed | {secret, volume}
    assert set(await kept(site, owned=True)) == whole | {pod}
    assert set(await kept(site, cluster=False)) == whole - {volume}
    assert set(await kept(site, exclude_kinds=("secrets", "PersistentVolume"))) == whole - {secret, volume}
    assert set(await kept(site, kinds=("configmaps",), namespaces=("shop",))) == maps | needed
    assert set(await kept(site, labels="is=a")) == {"namespaces/shop/configmaps/a.json"} | needed
    theirs = await kept(site, namespaces=("kube-system",))
    assert "namespaces/kube-system/configmaps/theirs.json" in theirs
    with pytest.raises(SourceMissing, match="no kind Crate"):
        await kept(site, kinds=("Crate",))
    with pytest.raises(SourceMissing, match="no namespace nowhere"):
        await kept(site, namespaces=("nowhere",))


async def test_an_aggregated_api_whose_server_is_down_takes_nothing_else_with_it(
    api: FakeKubernetes, site: Site
) -> None:
    whole = await kept(site)
    api.store.refused = {"/apis/apps/v1": 503}
    assert await kept(site) == whole
    api.store.refused = {"/api/v1": 503}
    with pytest.raises(SourceUnavailable):
        await kept(site)


def test_a_connection_that_was_idle_and_is_gone_is_made_anew(api: FakeKubernetes, site: Site) -> None:
    asking = kubernetes_api.Api(site, "default")
    asking.get("/api/v1/namespaces")
    assert asking._connection
    assert asking._connection.sock
    asking._connection.sock.shutdown(2)
    assert asking.get("/api/v1/namespaces")["items"]
    asking.interrupt()
    with pytest.raises(AttemptOver):
        asking.get("/api/v1/namespaces")
    asking.close()


async def test_a_manifest_is_as_old_as_its_object_and_another_file_when_it_differs(
    api: FakeKubernetes, site: Site
) -> None:
    async def node() -> Node:
        source = KubernetesSource(KubernetesOptions(namespaces=("shop",), labels="is=a"), site)
        async with source.snap() as frozen:
            return next(one.node for one in source.export(frozen) if one.path.endswith(b"/a.json"))

    before, same = await node(), await node()
    assert before == same
    assert datetime.fromtimestamp(before.mtime_ns / 1e9, UTC).isoformat() == MADE.replace("Z", "+00:00")
    api.ask("PUT", f"{MAPS}/a", {"metadata": {"name": "a", "labels": {"is": "a"}}, "data": {"is": "gone"}})
    after = await node()
    assert (after.size, after.mtime_ns) == (before.size, before.mtime_ns)
    assert after.inode != before.inode


async def test_a_backup_of_a_namespace_has_the_definitions_of_its_custom_kinds_in_the_version_that_is_preferred(
    api: FakeKubernetes, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = fake_kubernetes.RECORDED
    versions = [{"version": "v1"}, {"version": "v2"}]
    group = {"name": "shop.example.org", "preferredVersion": versions[1], "versions": versions}
    monkeypatch.setitem(known, "/apis", {"groups": [*known["/apis"]["groups"], group]})
    resource = {"name": "crates", "kind": "Crate", "namespaced": True, "verbs": ["list", "create", "patch"]}
    for version in ("v1", "v2"):
        monkeypatch.setitem(known, f"/apis/shop.example.org/{version}", {"resources": [resource]})
    api.ask("POST", "/apis/shop.example.org/v2/namespaces/shop/crates", {"metadata": {"name": "one"}})
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for name in ("crates.shop.example.org", "boxes.shop.example.org"):
        api.ask("POST", definitions, {"metadata": {"name": name}, "spec": {}})
    found = await kept(site, namespaces=("shop",))
    assert found["namespaces/shop/crates.shop.example.org/one.json"]["apiVersion"] == "shop.example.org/v2"
    below = "cluster/customresourcedefinitions.apiextensions.k8s.io/"
    assert [path for path in found if path.startswith(below)] == [f"{below}crates.shop.example.org.json"]


def test_an_interrupt_reaches_the_images_of_volumes(
    api: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"kubernetes": {"default": api.settings()}, "rbd": {"main": {}}}
    source = KubernetesSource(KubernetesOptions(volumes="main"), Site("site", settings, str(tmp_path)))
    api.ask("POST", "/api/v1/persistentvolumes", {"metadata": {"name": "pv"}, "spec": {"rbd": {"image": "one"}}})
    assert source._volumes.add(source._api, Bound("shop", "disk", "pv")) == ""
    told: list[str] = []
    monkeypatch.setattr(RbdSource, "interrupt", lambda self: told.extend(self.claims()))
    source.interrupt()
    source._api.close()
    assert told == ["rbd+pvc://main/shop/disk"]


def test_what_takes_more_than_named_namespaces_wants_the_right_to_all(site: Site) -> None:
    def reads(**options: Any) -> list[str]:
        return KubernetesSource(KubernetesOptions(**options), site).claims()

    def writes(**options: Any) -> list[str]:
        return KubernetesSource.restore_claims(KubernetesRestore(**options), site)

    assert reads(namespaces=("b", "a")) == ["kubernetes://default/a", "kubernetes://default/b"]
    assert reads(namespaces=("a",), cluster=True) == reads() == reads(labels="x=y") == ["kubernetes://default"]
    assert writes(namespaces={"a": "c", "b": "d"}) == ["kubernetes://default/c", "kubernetes://default/d"]
    assert writes(namespaces={"a": "c"}, cluster=True) == writes() == ["kubernetes://default"]


def test_what_is_no_name_of_a_namespace_is_refused_before_any_rule_is_asked(site: Site) -> None:
    for name in ("", "../x", "a/b", "*"):
        with pytest.raises(BadOptions, match="no name of a namespace"):
            KubernetesSource(KubernetesOptions(namespaces=(name,)), site)
        with pytest.raises(BadOptions, match="no name of a namespace"):
            KubernetesSource.restore_claims(KubernetesRestore(namespaces={"shop": name}), site)


# ---- applying ----------------------------------------------------------------------------------------------------


def test_manifests_are_applied_in_an_order_in_which_each_finds_what_it_needs(api: FakeKubernetes, site: Site) -> None:
    web = one_of("Deployment", "web", "apps/v1", spec={})
    web["metadata"]["namespace"] = "new"
    word = one_of("Secret", "word")
    word["metadata"]["namespace"] = "new"
    applied(site, [web, word, one_of("Namespace", "new")])
    assert [path.rpartition("/")[0] for path in changes(api)[-3:]] == [
        "PATCH /api/v1/namespaces",
        "PATCH /api/v1/namespaces/new/secrets",
        "PATCH /apis/apps/v1/namespaces/new/deployments",
    ]


def test_a_dry_run_changes_nothing_and_says_what_differs(api: FakeKubernetes, site: Site) -> None:
    before = api.ask("GET", MAPS)
    applied(site, [config("a"), config("new")], dry_run=True)
    assert api.ask("GET", MAPS) == before
    assert len(changes(api)) == 2, "it was tried"
    with pytest.raises(SourceError, match="2 objects are there and differ: ConfigMap shop/a; ConfigMap shop/b"):
        applied(site, [config("a", value="other"), config("b", value="other"), config("new")], dry_run=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_differs_is_refused_before_anything_is_changed(api: FakeKubernetes, site: Site, overwrite: bool) -> None:
    manifests = [config("new"), config("b", value="other")]
    if overwrite:
        applied(site, manifests, overwrite=True)
        assert api.ask("GET", f"{MAPS}/b")["data"] == {"is": "other"}
        return
    with pytest.raises(SourceError, match="1 objects"):
        applied(site, manifests)
    assert [one["metadata"]["name"] for one in api.ask("GET", MAPS)["items"]] == list("abcde")


def test_what_the_cluster_refuses_for_another_reason_ends_the_restore_before_anything_is_changed(
    api: FakeKubernetes, site: Site
) -> None:
    api.store.refused = {f"{MAPS}/wrong": 422}
    before = api.ask("GET", MAPS)
    with pytest.raises(SourceError, match=f"422 to PATCH {MAPS}/wrong"):
        applied(site, [config("new"), config("wrong")])
    assert api.ask("GET", MAPS) == before


def test_only_what_is_wanted_is_applied(api: FakeKubernetes, site: Site) -> None:
    manifests = [config("x"), config("y", "kube-system"), one_of("PersistentVolume", "disk", spec={})]
    applied(site, manifests, namespaces={"shop": "shop"})
    assert {one.rpartition("/")[2] for one in changes(api)} == {"x"}
    api.store.asked.clear()
    applied(site, manifests, namespaces={"shop": "shop"}, cluster=True, kinds=("persistentvolumes",))
    assert {one.rpartition("/")[2] for one in changes(api)} == {"disk"}


def test_a_kind_that_the_cluster_does_not_come_to_know_ends_the_restore(
    api: FakeKubernetes, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_sink, "KNOWN_SECONDS", 0.3)
    crate = one_of("Crate", "one", "shop.example.org/v1")
    with pytest.raises(SourceError, match=r"no Crate of shop.example.org/v1"):
        applied(site, [config("new"), crate])
    spec = {"group": "shop.example.org", "names": {"kind": "Crate", "plural": "crates"}}
    definition = one_of("CustomResourceDefinition", "crates.shop.example.org", "apiextensions.k8s.io/v1", spec=spec)
    looks = _counted(monkeypatch)
    with pytest.raises(SourceError, match=r"no Crate of shop.example.org/v1"):
        applied(site, [definition, crate])
    assert looks() > 1, "it was waited for"


def _counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    count = 0
    real = kubernetes_api.Api.kinds

    def counting(self: kubernetes_api.Api) -> Any:
        nonlocal count
        count += 1
        return real(self)

    monkeypatch.setattr(kubernetes_api.Api, "kinds", counting)
    return lambda: count
