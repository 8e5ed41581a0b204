"""Restores manifests: all are read, tried, and only then applied, in an order in which each finds what it needs."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from snappy.errors import SourceError, SourceMissing
from snappy.repository.entries import Node
from snappy.repository.paths import split
from snappy.sources.plugins.kubernetes_api import PLUGIN, Api, Kind, Object, Refused
from snappy.sources.plugins.kubernetes_objects import moved, names_kind, rank

IN_MEMORY = 1 << 20
CONFLICT = 409
TOLD = 10
LOOK_SECONDS = 0.2
KNOWN_SECONDS = 30.0
"""For the cluster to know a kind that was just defined."""
DEFINITION = "CustomResourceDefinition"


class _Place(NamedTuple):
    """Of a manifest in the file that holds them all; places sort as they are to be applied."""

    rank: int
    namespace: str
    kind: str
    name: str
    offset: int
    size: int


class KubernetesSink:
    """See :class:`snappy.repository.entries.StreamSink`."""

    def __init__(
        self,
        api: Api,
        *,
        namespaces: Mapping[str, str],
        kinds: Sequence[str],
        cluster: bool,
        overwrite: bool,
        dry_run: bool,
    ) -> None:
        self._api, self._namespaces, self._wanted = api, namespaces, kinds
        self._cluster, self._overwrite, self._dry_run = cluster, overwrite, dry_run
        self._manifests = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - lives until close
        self._places: list[_Place] = []
        self._kinds: dict[tuple[str, str], Kind] = {}
        self._has_manifests = False

    def interrupt(self) -> None:
        self._api.interrupt()

    def receive(self, path: bytes, node: Node, content: Iterator[bytes]) -> list[str]:
        if split(path)[0] != PLUGIN.encode():
            return []  # what another source has, such as the images of volumes
        self._has_manifests = True
        data = b"".join(content)
        if not path.endswith(b".json") or path.endswith(b"/about.json"):
            return []
        try:
            manifest = json.loads(data)
            place = _Place(
                rank(manifest),
                manifest["metadata"].get("namespace", ""),
                manifest["kind"],
                manifest["metadata"]["name"],
                self._manifests.tell(),
                len(data),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SourceError(
                f"{os.fsdecode(path)} is no manifest of Kubernetes",
                hint="restore a snapshot that the plug-in kubernetes made",
            ) from error
        if self._is_wanted(place):
            self._manifests.write(data)
            self._places.append(place)
        return []

    def _is_wanted(self, place: _Place) -> bool:
        namespace = place.name if place.kind == "Namespace" else place.namespace
        return (not namespace and self._cluster) or bool(
            namespace and (not self._namespaces or namespace in self._namespaces)
        )

    def finish(self) -> list[str]:
        """Raises :class:`SourceError` for what is there and differs, before anything is changed."""
        if not self._has_manifests:
            raise SourceError(
                "the snapshot has no manifests of Kubernetes", hint="restore one that the plug-in kubernetes made"
            )
        self._places.sort()
        self._learn()
        self._try_all()
        if not self._dry_run:
            for manifest in self._each():
                kind = self._kind_of(manifest)
                if kind is not None:
                    self._apply(kind, manifest, dry=False)
        return []

    def close(self) -> None:
        self._manifests.close()
        self._api.close()

    def _each(self) -> Iterator[Object]:
        for place in self._places:
            self._manifests.seek(place.offset)
            yield moved(json.loads(self._manifests.read(place.size)), self._namespaces)

    def _learn(self) -> None:
        self._kinds = {(kind.api_version, kind.kind): kind for kind in self._api.kinds()}

    def _try_all(self) -> None:
        """What lies in a namespace, or is of a kind, that there is not yet cannot be tried."""
        conflicts: list[str] = []
        absent: set[str] = set()
        defined = {_defines(manifest) for manifest in self._each() if manifest["kind"] == DEFINITION}
        for manifest in self._each():
            about = manifest["metadata"]
            if manifest["kind"] == "Namespace" and self._is_absent(manifest):
                absent.add(about["name"])
            group = manifest["apiVersion"].rpartition("/")[0]
            is_new = (manifest["apiVersion"], manifest["kind"]) not in self._kinds and (
                group,
                manifest["kind"],
            ) in defined
            if about.get("namespace") in absent or is_new:
                continue
            kind = self._kind_of(manifest)
            if kind is not None:
                conflicts += self._tried(kind, manifest)
        if conflicts:
            raise SourceError(
                f"{len(conflicts)} objects are there and differ: {'; '.join(conflicts[:TOLD])}",
                hint="`overwrite: true` replaces the fields, `namespaces` restores to other ones; nothing was changed",
            )

    def _tried(self, kind: Kind, manifest: Object) -> list[str]:
        try:
            self._apply(kind, manifest, dry=True)
        except Refused as error:
            if error.status != CONFLICT:
                raise
            return [f"{manifest['kind']} {_full_name(manifest)}"]
        return []

    def _is_absent(self, namespace: Object) -> bool:
        try:
            self._api.get(f"/api/v1/namespaces/{namespace['metadata']['name']}")
        except SourceMissing:
            return True
        return False

    def _apply(self, kind: Kind, manifest: Object, *, dry: bool) -> None:
        about = manifest["metadata"]
        path = kind.path(about.get("namespace", ""), about["name"])
        self._api.apply(path, manifest, force=self._overwrite, dry=dry)

    def _kind_of(self, manifest: Object) -> Kind | None:
        """``None``: it is not asked for. Waits for one that this restore has defined. Raises :class:`SourceError`."""
        asked = manifest["apiVersion"], manifest["kind"]
        until = time.monotonic() + KNOWN_SECONDS
        while asked not in self._kinds:
            if self._dry_run or not self._has_defined(asked) or time.monotonic() > until:
                raise SourceError(
                    f"the cluster has no {asked[1]} of {asked[0]}",
                    hint="install what defines it, or leave it out with `kinds`",
                )
            time.sleep(LOOK_SECONDS)
            self._learn()
        kind = self._kinds[asked]
        return kind if not self._wanted or any(names_kind(kind, wanted) for wanted in self._wanted) else None

    def _has_defined(self, asked: tuple[str, str]) -> bool:
        definitions: Iterable[Object] = (one for one in self._each() if one["kind"] == DEFINITION)
        return (asked[0].rpartition("/")[0], asked[1]) in map(_defines, definitions)


def _defines(definition: Object) -> tuple[str, str]:
    """Group and kind."""
    return definition["spec"]["group"], definition["spec"]["names"]["kind"]


def _full_name(manifest: Object) -> str:
    about = manifest["metadata"]
    return "/".join(filter(None, (about.get("namespace"), about["name"])))
