"""What of an object of Kubernetes is worth keeping: not what a cluster makes by itself, nor what is true of one cluster
alone. And in what order objects can be made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snappy.sources.plugins.kubernetes_api import Kind, Object

DERIVED = frozenset(
    {
        "bindings",
        "componentstatuses",
        "controllerrevisions.apps",
        "csinodes.storage.k8s.io",
        "csistoragecapacities.storage.k8s.io",
        "endpoints",
        "endpointslices.discovery.k8s.io",
        "events",
        "events.events.k8s.io",
        "flowschemas.flowcontrol.apiserver.k8s.io",
        "leases.coordination.k8s.io",
        "nodes",
        "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
        "volumeattachments.storage.k8s.io",
    }
)
"""Kinds that a cluster makes, and that mean nothing in another one."""
CLUSTERS_OWN = ("kube-system", "kube-public", "kube-node-lease")
FIRST = (
    "CustomResourceDefinition",
    "Namespace",
    "PriorityClass",
    "StorageClass",
    "PersistentVolume",
    "ResourceQuota",
    "LimitRange",
    "NetworkPolicy",
    "ServiceAccount",
    "Secret",
    "ConfigMap",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "PersistentVolumeClaim",
    "Service",
)
LAST = (
    "Pod",
    "ReplicaSet",
    "ReplicationController",
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CronJob",
    "Ingress",
    "HorizontalPodAutoscaler",
    "APIService",
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
)
"""The others come between these. Webhooks could refuse all that comes after them."""
OF_ONE_CLUSTER = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
)
NOTES = (
    "deployment.kubernetes.io/revision",
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/selected-node",
    "volume.kubernetes.io/storage-provisioner",
)
"""Annotations that controllers make, of one cluster alone."""
PROVISIONED = "pv.kubernetes.io/provisioned-by"
TOKEN_VOLUME = "kube-api-access-"
JOB_LABELS = ("controller-uid", "batch.kubernetes.io/controller-uid")


def rank(manifest: Object) -> int:
    """Lower ones are made first."""
    kind = manifest["kind"]
    if kind in FIRST:
        return FIRST.index(kind)
    return len(FIRST) + 1 + LAST.index(kind) if kind in LAST else len(FIRST)


def is_made_by_cluster(one: Object) -> bool:
    """Whether the cluster, or a controller in it, makes such an object anew by itself."""
    about, kind = one["metadata"], one["kind"]
    labels, notes = about.get("labels") or {}, about.get("annotations") or {}
    return (
        "deletionTimestamp" in about
        or labels.get("kubernetes.io/bootstrapping") == "rbac-defaults"
        or "kube-aggregator.kubernetes.io/automanaged" in labels
        or PROVISIONED in notes
        or (kind == "Secret" and one.get("type") == "kubernetes.io/service-account-token")
        or (kind == "ConfigMap" and about["name"] == "kube-root-ca.crt")
        or (kind == "PriorityClass" and about["name"].startswith("system-"))
        or (kind == "Service" and (about.get("namespace"), about["name"]) == ("default", "kubernetes"))
    )


def is_controlled(one: Object) -> bool:
    """Whether another object makes it."""
    return any(owner.get("controller") for owner in one["metadata"].get("ownerReferences") or ())


def cleaned(one: Object) -> Object:
    """What can be applied to any cluster. ``one`` is changed."""
    one.pop("status", None)
    about = one["metadata"]
    for name in OF_ONE_CLUSTER:
        about.pop(name, None)
    notes = {name: value for name, value in (about.pop("annotations", None) or {}).items() if name not in NOTES}
    if notes:
        about["annotations"] = notes
    clean = _CLEANERS.get(one["kind"])
    if clean:
        clean(one)
    return one


def _clean_service(one: Object) -> None:
    spec = one["spec"]
    if spec.get("clusterIP") != "None":
        for name in ("clusterIP", "clusterIPs"):
            spec.pop(name, None)
    spec.pop("healthCheckNodePort", None)


def _clean_pod(one: Object) -> None:
    spec = one["spec"]
    spec.pop("nodeName", None)
    spec["volumes"] = [volume for volume in spec.get("volumes", ()) if not volume["name"].startswith(TOKEN_VOLUME)]
    for container in [*spec.get("initContainers", ()), *spec.get("containers", ())]:
        mounts = container.get("volumeMounts", ())
        container["volumeMounts"] = [mount for mount in mounts if not mount["name"].startswith(TOKEN_VOLUME)]


def _clean_job(one: Object) -> None:
    spec = one["spec"]
    if not spec.get("manualSelector"):
        spec.pop("selector", None)
        for about in (one["metadata"], spec["template"].get("metadata") or {}):
            for name in JOB_LABELS:
                (about.get("labels") or {}).pop(name, None)


def _clean_claim(one: Object) -> None:
    """It gets a volume anew."""
    one["spec"].pop("volumeName", None)


def _clean_volume(one: Object) -> None:
    claim = one["spec"].get("claimRef") or {}
    for name in ("uid", "resourceVersion"):
        claim.pop(name, None)


def _clean_account(one: Object) -> None:
    made = f"{one['metadata']['name']}-token-"
    one["secrets"] = [secret for secret in one.get("secrets") or () if not secret.get("name", "").startswith(made)]


def _clean_namespace(one: Object) -> None:
    one.pop("spec", None)


_CLEANERS = {
    "Job": _clean_job,
    "Namespace": _clean_namespace,
    "PersistentVolume": _clean_volume,
    "PersistentVolumeClaim": _clean_claim,
    "Pod": _clean_pod,
    "Service": _clean_service,
    "ServiceAccount": _clean_account,
}


def moved(one: Object, namespaces: Mapping[str, str]) -> Object:
    """In the namespace that its own is to be, with what refers to that. ``one`` is changed."""
    about = one["metadata"]
    old = about["name"] if one["kind"] == "Namespace" else about.get("namespace", "")
    new = namespaces.get(old, old)
    if new == old:
        return one
    if one["kind"] == "Namespace":
        about["name"] = new
        (about.get("labels") or {}).pop("kubernetes.io/metadata.name", None)
    else:
        about["namespace"] = new
    for subject in one.get("subjects") or ():
        if subject.get("namespace") in namespaces:
            subject["namespace"] = namespaces[subject["namespace"]]
    if one["kind"] == "Service":
        _free_ports(one["spec"])
    return one


def _free_ports(spec: dict[str, Any]) -> None:
    """A node has each port once."""
    for port in spec.get("ports") or ():
        port.pop("nodePort", None)


def names_kind(kind: Kind, wanted: str) -> bool:
    """Whether ``deployments.apps``, ``deployments`` or ``Deployment`` mean it."""
    return wanted in (kind.name, kind.plural, kind.kind)
