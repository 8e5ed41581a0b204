"""The ``kubernetes`` plug-in: a cluster's objects as manifests that can be applied again, all as of one revision."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from datetime import datetime
from functools import partial, reduce
from pathlib import Path
from typing import Annotated, Any, BinaryIO, ClassVar, NamedTuple
from urllib.parse import quote

import msgspec
from msgspec import Meta

from snappy.errors import BadOptions, NoSpace, SourceMissing, SourceUnavailable
from snappy.repository.entries import Entry, Exported, Node, StreamSink
from snappy.repository.paths import ROOT, join, split
from snappy.sources.made_up import folder_node
from snappy.sources.plugins.kubernetes_access import KubernetesSettings
from snappy.sources.plugins.kubernetes_api import PLUGIN, Api, Kind, Object, Refused
from snappy.sources.plugins.kubernetes_objects import (
    CLUSTERS_OWN,
    DERIVED,
    cleaned,
    is_controlled,
    is_made_by_cluster,
    names_kind,
)
from snappy.sources.plugins.kubernetes_sink import DEFINITION, KubernetesSink
from snappy.sources.plugins.kubernetes_volumes import Bound, Volumes, bound
from snappy.sources.plugins.rbd import CHAIN
from snappy.sources.site import Site

GONE = 410
TRIES = 3
"""Of reading all as of one revision, which the cluster forgets after some minutes."""

Names = tuple[str, ...]


class KubernetesOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which objects of a cluster."""

    server: Annotated[str, Meta(description="which cluster, by its name in the service's settings")] = "default"
    namespaces: Annotated[Names, Meta(description="default: all but those of the cluster itself, kube-...")] = ()
    kinds: Annotated[Names, Meta(description="such as deployments.apps; default: all that are not made by others")] = ()
    exclude_kinds: Annotated[Names, Meta(description="kinds that are left out")] = ()
    labels: Annotated[str, Meta(description="a label selector, such as app=shop,tier!=cache")] = ""
    cluster: Annotated[
        bool | None,
        Meta(description="what lies in no namespace, too; default: where no namespace and no label is named"),
    ] = None
    owned: Annotated[bool, Meta(description="also what a controller makes, as the pods of a deployment")] = False
    volumes: Annotated[
        str, Meta(description="also the RBD images of claims, of the Ceph cluster that the settings of `rbd` name so")
    ] = ""
    chain: Annotated[str, Meta(pattern=CHAIN, description="of the images, as of the plug-in `rbd`")] = "main"
    exclude_volumes: Annotated[
        Names, Meta(description="claims whose volumes are not wanted, as patterns: shop/cache, shop/*")
    ] = ()


class KubernetesRestore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where manifests are applied."""

    server: Annotated[str, Meta(description="which cluster, by its name in the service's settings")] = "default"
    namespaces: Annotated[dict[str, str], Meta(description='which, and as what: {"shop": "shop-of-yesterday"}')] = {}
    kinds: Annotated[Names, Meta(description="only these kinds, such as deployments.apps")] = ()
    cluster: Annotated[
        bool | None, Meta(description="what lies in no namespace; default: if no namespace is named")
    ] = None
    overwrite: Annotated[bool, Meta(description="take over fields that differ; else they end the restore")] = False
    dry_run: Annotated[bool, Meta(description="only try, and say what differs")] = False


class _Object(NamedTuple):
    """One of the cluster, as it is kept."""

    path: bytes
    made_ns: int
    claim: Bound | None
    manifest: Object


class _Manifest(NamedTuple):
    """Where one lies in the file that holds them all."""

    path: bytes
    offset: int
    size: int
    made_ns: int
    digest: bytes
    claim: Bound | None = None
    warning: str = ""


class Frozen(NamedTuple):
    """All manifests, in the order of their paths, and the images of volumes, with what they are frozen to."""

    file: Path
    manifests: list[_Manifest]
    images: list[Any]


class KubernetesSource:
    """The objects of a cluster, as of one revision."""

    name: ClassVar[str] = PLUGIN
    Options: ClassVar[type[msgspec.Struct]] = KubernetesOptions
    RestoreOptions: ClassVar[type[msgspec.Struct]] = KubernetesRestore
    Settings: ClassVar[type[msgspec.Struct]] = KubernetesSettings

    def __init__(self, options: KubernetesOptions, site: Site) -> None:
        for name in options.namespaces:
            _check_namespace(name)
        self._options, self._site = options, site
        self._api = Api(site, options.server)
        self._top = reduce(join, (b"kubernetes", os.fsencode(options.server)), ROOT)
        whole = not (options.namespaces or options.labels)
        self._cluster = whole if options.cluster is None else options.cluster
        self._volumes = Volumes(site, options.volumes, options.chain, options.exclude_volumes)

    def claims(self) -> list[str]:
        """``kubernetes://<server>/<namespace>``, or the server; for volumes ``rbd+pvc://<cluster>/<namespace>``, or the
        Ceph cluster."""
        namespaces = self._options.namespaces
        objects = _claims(self._options.server, () if self._cluster else namespaces)
        return objects + self._volumes.claims(namespaces)

    def interrupt(self) -> None:
        self._api.interrupt()
        self._volumes.together().interrupt()

    def snap(self) -> AbstractAsyncContextManager[Frozen]:
        """Read everything as it is now, then freeze the images of volumes. Raises :class:`SourceMissing` for a
        namespace that there is not, and as ``rbd`` does."""
        return self._snap()

    @asynccontextmanager
    async def _snap(self) -> AsyncIterator[Frozen]:
        held = ExitStack()
        try:
            file, manifests = await asyncio.to_thread(self._read_all, held)
            async with self._volumes.together().snap() as images:
                yield Frozen(file, manifests, images)
        finally:
            await asyncio.to_thread(held.close)

    def _read_all(self, held: ExitStack) -> tuple[Path, list[_Manifest]]:
        folder = held.enter_context(self._site.work_folder(PLUGIN))
        held.callback(self._api.close)
        file = folder / "manifests"
        for _ in range(TRIES):
            try:
                return file, [self._with_volume(one) for one in self._read_once(file)]
            except OSError as error:
                raise NoSpace(
                    f"no room to work in {folder}: {error.strerror}", hint="see `work` of the service"
                ) from error
            except Refused as error:
                if error.status != GONE:
                    raise
        raise SourceUnavailable(
            "the cluster forgets its revisions before all objects are read", hint="raise --etcd-compaction-interval"
        )

    def _with_volume(self, one: _Manifest) -> _Manifest:
        return one._replace(warning=self._volumes.add(self._api, one.claim)) if one.claim else one

    def _read_once(self, file: Path) -> list[_Manifest]:
        revision, found = self._api.revision(), []
        with file.open("wb") as out:
            for path, made, claim, manifest in self._objects(revision):
                data = _encoded(manifest)
                found.append(_Manifest(path, out.tell(), len(data), made, hashlib.sha256(data).digest(), claim))
                out.write(data)
            data = _encoded({"version": self._api.version(), "revision": revision, "objects": len(found)})
            path = join(self._top, b"about.json")
            found.append(_Manifest(path, out.tell(), len(data), 0, hashlib.sha256(data).digest()))
            out.write(data)
        return sorted(found, key=lambda one: split(one.path))

    def _objects(self, revision: str) -> Iterator[_Object]:
        kinds, custom = self._kinds(), set()
        for kind in kinds:
            for one in self._objects_of(kind, revision):
                if self._is_kept(one):
                    custom.add(f"{kind.plural}.{kind.group}")
                    yield self._object(kind, one)
        if not self._cluster:
            yield from self._needed(kinds, custom, revision)

    def _kinds(self) -> list[Kind]:
        wanted, unwanted = self._options.kinds, self._options.exclude_kinds
        all_of_them = self._api.kinds()
        for name in wanted:
            if not any(names_kind(kind, name) for kind in all_of_them):
                raise SourceMissing(f"the cluster has no kind {name}", hint="`kubectl api-resources` lists them")
        chosen = [
            kind
            for kind in all_of_them
            if (any(names_kind(kind, name) for name in wanted) if wanted else kind.name not in DERIVED)
        ]
        self._definitions = [kind for kind in all_of_them if kind.kind in (DEFINITION, "Namespace")]
        return [kind for kind in chosen if not any(names_kind(kind, name) for name in unwanted)]

    def _objects_of(self, kind: Kind, revision: str) -> Iterator[Object]:
        if not kind.namespaced:
            return self._api.objects(kind, "", self._options.labels, revision) if self._cluster else iter(())
        places = self._options.namespaces or ("",)
        return (one for place in places for one in self._api.objects(kind, place, self._options.labels, revision))

    def _is_kept(self, one: Object) -> bool:
        about = one["metadata"]
        space = about["name"] if one["kind"] == "Namespace" else about.get("namespace", "")
        if not self._options.namespaces and space in CLUSTERS_OWN:
            return False
        if self._options.namespaces and one["kind"] == "Namespace" and space not in self._options.namespaces:
            return False
        return not is_made_by_cluster(one) and (self._options.owned or not is_controlled(one))

    def _needed(self, kinds: list[Kind], found: set[str], revision: str) -> Iterator[_Object]:
        """Namespaces, and the definitions of kinds, without which objects cannot be applied."""
        there = set()
        for kind in self._definitions:
            for one in self._api.objects(kind, "", "", revision):
                name = one["metadata"]["name"]
                there.add(name)
                wanted = found if kind.kind == DEFINITION else set(self._options.namespaces)
                if name in wanted or (kind.kind == "Namespace" and not wanted and self._is_kept(one)):
                    yield self._object(kind, one)
        for name in self._options.namespaces:
            if name not in there:
                raise SourceMissing(f"the cluster has no namespace {name}", hint="`kubectl get namespaces` lists them")

    def _object(self, kind: Kind, one: Object) -> _Object:
        about = one["metadata"]
        made = datetime.fromisoformat(about["creationTimestamp"].replace("Z", "+00:00"))
        space = about.get("namespace", "")
        above = ("namespaces", space) if space else ("cluster",)
        names = (*above, kind.name, f"{about['name']}.json")
        path = reduce(join, map(os.fsencode, names), self._top)
        return _Object(path, int(made.timestamp()) * 10**9, bound(one), cleaned(one))

    def export(self, frozen: Frozen) -> Iterator[Exported]:
        """The manifests, then the images, as ``rbd`` has them. A manifest that did not change is not taken for
        another."""
        yield from _entries(frozen)
        yield from self._volumes.together().export(frozen.images)

    @classmethod
    def restore_claims(cls, options: KubernetesRestore, site: Site) -> list[str]:
        """``kubernetes://<server>/<namespace>`` of each, or the server."""
        for name in (*options.namespaces, *options.namespaces.values()):
            _check_namespace(name)
        return _claims(options.server, () if _restores_cluster(options) else tuple(options.namespaces.values()))

    @classmethod
    def import_(cls, options: KubernetesRestore, claims: Sequence[str], site: Site) -> StreamSink:
        """Nothing is applied before all was read and tried."""
        return KubernetesSink(
            Api(site, options.server),
            namespaces=options.namespaces,
            kinds=options.kinds,
            cluster=_restores_cluster(options),
            overwrite=options.overwrite,
            dry_run=options.dry_run,
        )


def _entries(frozen: Frozen) -> Iterator[Entry]:
    known: set[bytes] = set()
    for one in frozen.manifests:
        names = split(one.path)[:-1]
        for count in range(1, len(names) + 1):
            folder = reduce(join, names[:count], ROOT)
            if folder not in known:
                known.add(folder)
                yield Entry(path=folder, node=folder_node(names[count - 1]))
        yield Entry(path=one.path, node=_node(one), open=partial(_open, frozen.file, one), warning=one.warning)


def _restores_cluster(options: KubernetesRestore) -> bool:
    return not options.namespaces if options.cluster is None else options.cluster


def _check_namespace(name: str) -> None:
    if not name or not name.replace("-", "").isalnum() or not name.isascii():
        raise BadOptions(f"{name!r} is no name of a namespace", hint="lower-case letters, digits and -")


def _claims(server: str, namespaces: Sequence[str]) -> list[str]:
    whole = f"kubernetes://{quote(server, safe='')}"
    return sorted({f"{whole}/{name}" for name in namespaces}) or [whole]


def _encoded(manifest: Object) -> bytes:
    return json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _node(one: _Manifest) -> Node:
    return Node(
        name=os.path.basename(one.path),
        type="file",
        mode=0o600,
        size=one.size,
        mtime_ns=one.made_ns,
        atime_ns=one.made_ns,
        ctime_ns=one.made_ns,
        inode=int.from_bytes(one.digest[:8], "big"),
        links=1,
    )


def _open(file: Path, one: _Manifest) -> BinaryIO:
    with file.open("rb") as spool:
        spool.seek(one.offset)
        return io.BytesIO(spool.read(one.size))
