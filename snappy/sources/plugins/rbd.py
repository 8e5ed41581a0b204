"""The ``rbd`` plug-in: an image of a Ceph cluster, from a snapshot of it; what did not change since the snapshot before
is not read."""

from __future__ import annotations

import asyncio
import io
import os
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import reduce
from typing import Annotated, BinaryIO, ClassVar, cast

import msgspec
from msgspec import Meta

from snappy import log
from snappy.errors import BadOptions, ProgramMissing, SnappyError, SourceError
from snappy.repository.entries import Entry, Extent, Node
from snappy.repository.paths import join
from snappy.sources.image_sink import ABOUT, ImageSink
from snappy.sources.made_up import folders_above, stream
from snappy.sources.plugins.rbd_cluster import Connection, ImageName, RbdSettings, module, pool, telling
from snappy.sources.plugins.rbd_disk import SHAPE, RbdDisk, shape_of
from snappy.sources.plugins.rbd_moments import Moments, extents
from snappy.sources.plugins.rbd_volumes import KnownClaim, VolumeClaim
from snappy.sources.site import Site

SUFFIX = b".img"
CHAIN = "^[a-z0-9]{1,32}$"

Wanted = ImageName | VolumeClaim | KnownClaim

_log = log.get(__name__)

_PVC = "instead of pool and image: a Kubernetes PersistentVolumeClaim whose image it is, as NAMESPACE/NAME"
_CLUSTER = "the name under which the source service's configuration has the cluster"
_NAMESPACE = "the pool's namespace; empty: none"


class RbdOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which image is backed up."""

    pool: Annotated[str, Meta(description="the image's pool")] = ""
    image: Annotated[str, Meta(description="its name")] = ""
    pvc: Annotated[str, Meta(description=_PVC)] = ""
    namespace: Annotated[str, Meta(description=_NAMESPACE)] = ""
    cluster: Annotated[str, Meta(description=_CLUSTER)] = "default"
    chain: Annotated[
        str,
        Meta(
            pattern=CHAIN,
            description="each chain of backups keeps a snapshot of the image, from which its next one begins: "
            "backups to another target are another chain",
        ),
    ] = "main"


class RbdRestore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the image goes."""

    pool: Annotated[str, Meta(description="the pool of the image to make, or to write to")] = ""
    image: Annotated[str, Meta(description="its name")] = ""
    pvc: Annotated[str, Meta(description=_PVC)] = ""
    namespace: Annotated[str, Meta(description=_NAMESPACE)] = ""
    cluster: Annotated[str, Meta(description=_CLUSTER)] = "default"
    overwrite: Annotated[bool, Meta(description="write to an image that is there, whatever is on it")] = False


class About(msgspec.Struct, frozen=True):
    """What lies beside an image, for who restores it without us."""

    pool: str
    namespace: str
    image: str
    size: int
    order: int
    features: list[str]
    stripe_unit: int
    stripe_count: int
    time: str
    consistency: str = "as after a power cut"


class Frozen:
    """A snapshot of the image, there from :meth:`freeze` to :meth:`close`, and longer if it is kept. All blocks."""

    def __init__(self, connection: Connection, wanted: Wanted, service: str, chain: str, over: threading.Event) -> None:
        self._wanted, self.what, self._over = wanted, wanted.claim, over
        self._connection, self._service, self._chain = connection, service, chain
        self._closing, self._opened = ExitStack(), ExitStack()
        self._lock = threading.Lock()
        self._token = ""
        self.time_ns = 0

    def freeze(self) -> None:
        """Take a snapshot, and open it. Raises what :func:`telling` makes."""
        with self._lock:
            self.name = self._wanted.found(self._connection.settings)
            self.what = f"the image {self.name}"
            with telling(self.what):
                self._freeze()

    def _freeze(self) -> None:
        open_image, name = module("rbd").Image, self.name.image
        ioctx, client = self._closing.enter_context(pool(self._connection, self.name))
        image = self._closing.enter_context(open_image(ioctx, name))
        self._moments = Moments(image, self._service, self._chain, client)
        self._moments.remove_left()
        self._token, self.time_ns = self._moments.take(), time.time_ns()
        snapshot = self._moments.reading(self._token)
        self._image = self._opened.enter_context(open_image(ioctx, name, snapshot=snapshot, read_only=True))
        self.size, self.id = self._image.size(), image.id()
        self.shape = shape_of(self._image)

    def keep(self) -> None:
        """The backup succeeded: let the next one begin here. If that cannot be, the next one reads all."""
        with self._lock:
            try:
                with telling(self.what):
                    self._opened.close()
                    self._moments.keep(self._token)
                self._token = ""
            except SnappyError as error:
                _log.warning("the next backup will read all", image=str(self.name), reason=error.message)

    def close(self) -> None:
        """Remove the snapshot, unless it is kept, and let go."""
        with self._lock, self._closing:
            if self._token:
                try:
                    with telling(self.what):
                        self._opened.close()
                        self._moments.drop(self._token)
                except SnappyError as error:
                    _log.warning("a snapshot stays until the next backup", image=str(self.name), reason=error.message)

    @property
    def point(self) -> str:
        """See :class:`snappy.repository.entries.Image`: an image that was made anew is another one."""
        return f"{self.id}/{self._token}"

    def allocated(self) -> Iterable[Extent]:
        with telling(self.what):
            return extents(self._image, None, self._check)

    def changed_since(self, point: str) -> Iterable[Extent] | None:
        image, _, token = point.partition("/")
        with telling(self.what):
            if image != self.id or not self._moments.has(token):
                return None
            return extents(self._image, self._moments.kept(token), self._check)

    def _check(self) -> None:
        if self._over.is_set():
            raise SourceError("the backup is given up")

    def open(self) -> BinaryIO:
        """What the snapshot holds."""
        return cast(BinaryIO, _Reading(self))

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of it."""
        with telling(self.what):
            data: bytes = self._image.read(offset, min(length, self.size - offset))
            return data

    def about(self) -> bytes:
        """What lies beside it, as JSON."""
        shape, name = self.shape, self.name
        features = module("rbd").RBD().features_to_string(shape.features).split(",")
        taken = datetime.fromtimestamp(self.time_ns // 10**9, UTC).isoformat()
        about = About(
            pool=name.pool,
            namespace=name.namespace,
            image=name.image,
            size=self.size,
            order=shape.order,
            features=features,
            stripe_unit=shape.stripe_unit,
            stripe_count=shape.stripe_count,
            time=taken,
        )
        return msgspec.json.format(msgspec.json.encode(about)) + b"\n"


class _Reading(io.RawIOBase):
    def __init__(self, frozen: Frozen) -> None:
        self._frozen, self._at = frozen, 0

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        assert whence == os.SEEK_SET
        self._at = offset
        return offset

    def read(self, size: int = -1, /) -> bytes:
        data = self._frozen.read(self._at, size)
        self._at += len(data)
        return data


class RbdSource:
    """An image as it was at one moment, as after a power cut of the machine that writes to it."""

    name: ClassVar[str] = "rbd"
    Options: ClassVar[type[msgspec.Struct]] = RbdOptions
    RestoreOptions: ClassVar[type[msgspec.Struct]] = RbdRestore
    Settings: ClassVar[type[msgspec.Struct]] = RbdSettings

    def __init__(
        self, options: RbdOptions, site: Site, known: KnownClaim | None = None, connection: Connection | None = None
    ) -> None:
        self._connection = connection or Connection(site.settings(self.name, RbdSettings, options.cluster))
        self._wanted = known or _wanted(options)
        self._service, self._chain = site.name, options.chain
        self._over = threading.Event()

    def interrupt(self) -> None:
        """See :class:`snappy.sources.base.Interruptible`."""
        self._over.set()

    def claims(self) -> list[str]:
        """``rbd://CLUSTER/POOL/NAMESPACE/IMAGE``, where CLUSTER is the name of the settings; of a volume claim
        ``rbd+pvc://CLUSTER/NAMESPACE/NAME``, wherever its image is."""
        return [self._wanted.claim]

    @classmethod
    def missing(cls) -> list[str]:
        """Ceph's Python modules, where they are."""
        try:
            module("rbd")
        except ProgramMissing as error:
            return [f"{error.message}: {error.hint}"]
        return []

    def snap(self) -> AbstractAsyncContextManager[Frozen]:
        """A snapshot, which a backup that succeeds keeps for the next one. What backups that died left is removed.
        Raises :class:`SourceMissing`, :class:`SourceDenied`, :class:`SourceUnavailable`, :class:`ProgramMissing`."""
        return self._snap()

    @asynccontextmanager
    async def _snap(self) -> AsyncIterator[Frozen]:
        frozen = Frozen(self._connection, self._wanted, self._service, self._chain, self._over)
        try:
            await asyncio.to_thread(frozen.freeze)
            yield frozen
            await asyncio.to_thread(frozen.keep)
        finally:
            await asyncio.to_thread(frozen.close)

    def export(self, frozen: Frozen) -> Iterator[Entry]:
        """The image, and a few words about it."""
        path = reduce(join, map(os.fsencode, ("rbd", *self._wanted.parts)), b"/")
        yield from folders_above(path)
        node = Node(name=os.path.basename(path) + SUFFIX, type="file", mode=0o600, size=frozen.size, links=1)
        node.mtime_ns = node.atime_ns = node.ctime_ns = frozen.time_ns
        node.xattrs = {SHAPE: msgspec.json.encode(frozen.shape)}
        yield Entry(path=path + SUFFIX, node=node, open=frozen.open, image=frozen)
        about = frozen.about()
        beside = stream(path + b".json", lambda: io.BytesIO(about), size=len(about))
        beside.node.xattrs = {ABOUT: b"image"}
        yield beside

    @classmethod
    def restore_claims(cls, options: RbdRestore, site: Site) -> list[str]:
        """As :meth:`claims`."""
        return [_wanted(options).claim]

    @classmethod
    def import_(cls, options: RbdRestore, claims: Sequence[str], site: Site) -> ImageSink:
        """Opens the image, or makes it, when it is known what comes. An image from elsewhere will do."""
        settings: RbdSettings = site.settings(cls.name, RbdSettings, options.cluster)

        wanted, overwrite = _wanted(options), options.overwrite

        def open_disk(node: Node, over: threading.Event) -> RbdDisk:
            return RbdDisk(settings, wanted.found(settings), node, over, overwrite=overwrite)

        return ImageSink(open_disk)


def _wanted(options: RbdOptions | RbdRestore) -> Wanted:
    if not options.pvc:
        return ImageName(options.cluster, options.pool, options.namespace, options.image).check()
    if options.pool or options.image or options.namespace:
        raise BadOptions("a volume claim says which pool and image is meant", hint="leave out all but `pvc`")
    return VolumeClaim.parse(options.cluster, options.pvc)
