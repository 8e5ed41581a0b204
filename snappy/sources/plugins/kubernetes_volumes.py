"""What volume claims hold: which images of a Ceph cluster they are, and why that of others is in no backup."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import NamedTuple

import msgspec

from snappy.decoding import converted
from snappy.errors import SourceError, SourceMissing
from snappy.sources.plugins.kubernetes_api import Api, Object
from snappy.sources.plugins.rbd import RbdOptions, RbdSource
from snappy.sources.plugins.rbd_cluster import Connection, RbdSettings
from snappy.sources.plugins.rbd_volumes import KnownClaim, Volume, VolumeClaim, image_of
from snappy.sources.site import Site
from snappy.sources.together import Together

CLAIM = "PersistentVolumeClaim"
ABSENT = "what is on its volume is not in this backup: "


class Bound(NamedTuple):
    """A claim that has a volume."""

    namespace: str
    name: str
    volume: str


def bound(one: Object) -> Bound | None:
    """An object as the cluster has it, if it is such a claim."""
    volume = one["spec"].get("volumeName") if one["kind"] == CLAIM else None
    return Bound(one["metadata"]["namespace"], one["metadata"]["name"], volume) if volume else None


class Volumes:
    """Of a Ceph cluster that the service's settings of ``rbd`` name so; an empty name: of none. Left out is what the
    patterns ``unwanted`` mean, ``NAMESPACE/NAME``."""

    def __init__(self, site: Site, cluster: str, chain: str, unwanted: Iterable[str]) -> None:
        self._site, self._cluster, self._chain, self._unwanted = site, cluster, chain, tuple(unwanted)
        self._images: list[RbdSource] = []
        self._connection = Connection(site.settings(RbdSource.name, RbdSettings, cluster)) if cluster else None

    def claims(self, namespaces: Iterable[str]) -> list[str]:
        """``rbd+pvc://<cluster>/<namespace>`` of each, or the Ceph cluster."""
        whole = f"rbd+pvc://{self._cluster}"
        return ([f"{whole}/{name}" for name in namespaces] or [whole]) if self._cluster else []

    def add(self, api: Api, claim: Bound) -> str:
        """Its image is one of those :meth:`together` then. Else why not; an empty string for what is not wanted."""
        if any(fnmatchcase(f"{claim.namespace}/{claim.name}", pattern) for pattern in self._unwanted):
            return ""
        if not self._cluster:
            return ABSENT + "the option `volumes` brings it"
        try:
            volume = api.get(f"/api/v1/persistentvolumes/{claim.volume}")
        except SourceMissing:
            return f"{ABSENT}the volume {claim.volume} is gone"
        try:
            image = image_of(converted(volume, Volume), claim.volume, self._cluster)
        except (SourceError, msgspec.ValidationError) as error:
            return ABSENT + str(error)
        known = KnownClaim(VolumeClaim(self._cluster, claim.namespace, claim.name), image)
        options = RbdOptions(cluster=self._cluster, chain=self._chain)
        self._images.append(RbdSource(options, self._site, known, self._connection))
        return ""

    def together(self) -> Together:
        """All images that were added."""
        return Together(self._images)
