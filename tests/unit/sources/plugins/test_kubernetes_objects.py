"""What is kept of objects, and in what order they are made again."""

from __future__ import annotations

from typing import Any

import pytest

from snappy.sources.plugins.kubernetes_objects import (
    FIRST,
    LAST,
    cleaned,
    is_controlled,
    is_made_by_cluster,
    moved,
    rank,
)

TOKEN_MOUNT = {"name": "kube-api-access-x2z", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}


def one(kind: str, spec: dict[str, Any] | None = None, **about: Any) -> dict[str, Any]:
    made = {"kind": kind, "metadata": {"name": "web", "namespace": "shop"} | about}
    return made | ({} if spec is None else {"spec": spec})


def test_what_is_true_of_one_cluster_alone_is_not_kept() -> None:
    """Fields as of https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/."""
    ours = {"labels": {"app": "web"}, "finalizers": ["shop/wait"], "annotations": {"team": "shop"}}
    notes = {"team": "shop", "deployment.kubernetes.io/revision": "3", "volume.kubernetes.io/selected-node": "n1"}
    theirs = dict.fromkeys(("creationTimestamp", "deletionGracePeriodSeconds", "generation", "managedFields"), 1)
    theirs |= dict.fromkeys(("ownerReferences", "resourceVersion", "selfLink", "uid"), 1)
    found = cleaned(
        one("Deployment", {"replicas": 2}, **ours | theirs | {"annotations": notes}) | {"status": {"ready": 2}}
    )
    assert found == one("Deployment", {"replicas": 2}, **ours)
    assert (
        "annotations" not in cleaned(one("Secret", annotations={"deployment.kubernetes.io/revision": "1"}))["metadata"]
    )


@pytest.mark.parametrize(
    ("kind", "spec", "kept"),
    [
        (
            "Service",
            {
                "clusterIP": "10.96.0.7",
                "clusterIPs": ["10.96.0.7"],
                "healthCheckNodePort": 31000,
                "type": "LoadBalancer",
            },
            {"type": "LoadBalancer"},
        ),
        ("Service", {"clusterIP": "None", "clusterIPs": ["None"]}, {"clusterIP": "None", "clusterIPs": ["None"]}),
        (
            "Pod",
            {
                "nodeName": "n1",
                "volumes": [{"name": "data"}, {"name": "kube-api-access-x2z"}],
                "initContainers": [{"name": "init", "volumeMounts": [TOKEN_MOUNT]}],
                "containers": [{"name": "web", "volumeMounts": [{"name": "data"}, TOKEN_MOUNT]}],
            },
            {
                "volumes": [{"name": "data"}],
                "initContainers": [{"name": "init", "volumeMounts": []}],
                "containers": [{"name": "web", "volumeMounts": [{"name": "data"}]}],
            },
        ),
        ("PersistentVolumeClaim", {"volumeName": "pvc-1", "accessModes": ["x"]}, {"accessModes": ["x"]}),
        (
            "PersistentVolume",
            {"claimRef": {"name": "data", "namespace": "shop", "uid": "1", "resourceVersion": "7"}},
            {"claimRef": {"name": "data", "namespace": "shop"}},
        ),
        (
            "Job",
            {"selector": {"matchLabels": {"controller-uid": "1"}}, "template": {"metadata": {"labels": {"app": "x"}}}},
            {"template": {"metadata": {"labels": {"app": "x"}}}},
        ),
        (
            "Job",
            {"manualSelector": True, "selector": {"matchLabels": {"app": "x"}}, "template": {}},
            {"manualSelector": True, "selector": {"matchLabels": {"app": "x"}}, "template": {}},
        ),
    ],
)
def test_of_some_kinds_more_goes(kind: str, spec: dict[str, Any], kept: dict[str, Any]) -> None:
    assert cleaned(one(kind, spec))["spec"] == kept


def test_labels_that_bind_a_job_to_its_old_self_go() -> None:
    old = {"controller-uid": "1", "batch.kubernetes.io/controller-uid": "1", "app": "x"}
    found = cleaned(one("Job", {"template": {"metadata": {"labels": dict(old)}}}, labels=dict(old)))
    assert found["metadata"]["labels"] == found["spec"]["template"]["metadata"]["labels"] == {"app": "x"}


def test_a_namespace_keeps_no_finalizers_and_an_account_none_of_the_tokens_that_were_made_for_it() -> None:
    assert "spec" not in cleaned(one("Namespace", {"finalizers": ["kubernetes"]}))
    account = one("ServiceAccount") | {"secrets": [{"name": "web-token-x2z"}, {"name": "registry"}]}
    assert cleaned(account)["secrets"] == [{"name": "registry"}]


@pytest.mark.parametrize(
    "made",
    [
        one("Pod", deletionTimestamp="2026-11-23T08:00:00Z"),
        one("ClusterRole", labels={"kubernetes.io/bootstrapping": "rbac-defaults"}),
        one("APIService", labels={"kube-aggregator.kubernetes.io/automanaged": "true"}),
        one("PersistentVolume", annotations={"pv.kubernetes.io/provisioned-by": "rbd.csi.ceph.com"}),
        one("Secret") | {"type": "kubernetes.io/service-account-token"},
        one("ConfigMap", name="kube-root-ca.crt"),
        one("PriorityClass", name="system-node-critical"),
        one("Service", name="kubernetes", namespace="default"),
    ],
)
def test_what_a_cluster_makes_by_itself_is_told_from_what_looks_like_it(made: dict[str, Any]) -> None:
    assert is_made_by_cluster(made)
    assert not is_made_by_cluster(one(made["kind"]) | {"type": "Opaque"})


def test_what_a_controller_makes_is_told_from_what_only_has_an_owner() -> None:
    assert is_controlled(one("Pod", ownerReferences=[{"name": "x"}, {"name": "y", "controller": True}]))
    assert not is_controlled(one("Secret", ownerReferences=[{"name": "x"}]))
    assert not is_controlled(one("Pod"))


def test_each_kind_comes_after_what_it_needs_and_webhooks_last() -> None:
    def ranks(*kinds: str) -> list[int]:
        return [rank(one(kind)) for kind in kinds]

    order = ["CustomResourceDefinition", "Namespace", "StorageClass", "PersistentVolume", "ServiceAccount", "ConfigMap"]
    order += [
        "ClusterRole",
        "PersistentVolumeClaim",
        "Service",
        "Crate",
        "Deployment",
        "ValidatingWebhookConfiguration",
    ]
    assert ranks(*order) == sorted(set(ranks(*order)))
    assert ranks("Crate", "Widget") == [len(FIRST)] * 2
    assert max(ranks(*FIRST)) < len(FIRST) < min(ranks(*LAST))


def test_in_another_namespace_what_refers_to_the_old_one_follows() -> None:
    names = {"shop": "back"}
    binding = one("RoleBinding") | {
        "subjects": [{"kind": "ServiceAccount", "namespace": "shop"}, {"kind": "ServiceAccount", "namespace": "other"}]
    }
    found = moved(binding, names)
    assert found["metadata"]["namespace"] == "back"
    assert [subject["namespace"] for subject in found["subjects"]] == ["back", "other"]
    service = moved(one("Service", {"ports": [{"port": 80, "nodePort": 30080}]}), names)
    assert service["spec"]["ports"] == [{"port": 80}]
    here = {"port": 80, "nodePort": 30080}
    assert moved(one("Service", {"ports": [dict(here)]}), {})["spec"]["ports"] == [here]
    namespace = {"kind": "Namespace", "metadata": {"name": "shop", "labels": {"kubernetes.io/metadata.name": "shop"}}}
    assert moved(namespace, names)["metadata"] == {"name": "back", "labels": {}}
    assert moved(one("Secret", namespace="other"), names)["metadata"]["namespace"] == "other"
