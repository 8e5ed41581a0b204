"""An RBD image that is restored to: a new one, or one that is there."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import msgspec

from snappy import log
from snappy.decoding import from_json
from snappy.errors import BadOptions
from snappy.repository.entries import Node
from snappy.sources.plugins.rbd_cluster import Connection, ImageName, RbdSettings, module, pool, telling
from snappy.sources.plugins.rbd_owner import ends_with_owner, is_alive, owner

SHAPE = b"user.snappy.rbd"
GRAIN = 64 << 10
LOOK_SECONDS = 0.5
WATCH_SECONDS = 35.0
"""A little more than the cluster waits until it believes that who watched an image is dead."""
KEPT_FEATURES = (
    "RBD_FEATURE_LAYERING",
    "RBD_FEATURE_STRIPINGV2",
    "RBD_FEATURE_EXCLUSIVE_LOCK",
    "RBD_FEATURE_OBJECT_MAP",
    "RBD_FEATURE_FAST_DIFF",
    "RBD_FEATURE_DEEP_FLATTEN",
)
"""What a new image gets of the old one's; others, such as mirroring, need a decision."""
UNFINISHED = "snappy-unfinished-"

_log = log.get(__name__)


class Shape(msgspec.Struct, frozen=True):
    """How an image is laid out, for one that is to be like it; kept in its node's extended attribute."""

    order: int
    features: int
    stripe_unit: int
    stripe_count: int


def shape_of(image: Any) -> Shape:
    """Of an open image. Raises Ceph's errors."""
    stat = image.stat()
    return Shape(stat["order"], image.features(), image.stripe_unit(), image.stripe_count())


def _create(ioctx: Any, name: str, node: Node) -> None:
    rbd = module("rbd")
    shape = _shape(node.xattrs)
    if shape is None:
        rbd.RBD().create(ioctx, name, node.size)
        return
    kept = sum(getattr(rbd, feature) for feature in KEPT_FEATURES)
    striped = shape.features & rbd.RBD_FEATURE_STRIPINGV2
    stripes = {"stripe_unit": shape.stripe_unit, "stripe_count": shape.stripe_count} if striped else {}
    rbd.RBD().create(ioctx, name, node.size, shape.order, False, shape.features & kept, **stripes)


def _shape(xattrs: Mapping[bytes, bytes]) -> Shape | None:
    try:
        return from_json(xattrs[SHAPE], Shape)
    except (KeyError, msgspec.DecodeError):  # an image from elsewhere
        return None


def _patiently(do: Callable[[], None], over: threading.Event) -> None:
    """Do it once nobody uses the image any more, or fail as it does then: who uses it may be dead."""
    end = time.monotonic() + WATCH_SECONDS
    while True:
        try:
            return do()
        except module("rbd").ImageBusy:
            if time.monotonic() > end or over.wait(LOOK_SECONDS):
                raise


class RbdDisk:
    """See :class:`snappy.sources.image_sink.Disk`. A new image has another name until it is complete. Raises
    :class:`BadOptions` where one is that may not be overwritten, :class:`SourceError` where it is in use."""

    grain = GRAIN

    def __init__(
        self, settings: RbdSettings, name: ImageName, node: Node, over: threading.Event, *, overwrite: bool
    ) -> None:
        self._name, self._what, self._over = name, f"the image {name}", over
        self._closing = ExitStack()
        try:
            self._ioctx, client = self._closing.enter_context(pool(Connection(settings), name))
            with telling(self._what):
                self.is_new = name.image not in module("rbd").RBD().list(self._ioctx)
                self._target = self._begin_new(node, client) if self.is_new else name.image
                if not self.is_new and not overwrite:
                    raise BadOptions(f"{self._what} exists", hint="`overwrite` lets it be written to")
                self._image = module("rbd").Image(self._ioctx, self._target)
                self._closing.callback(self._let_go)
                self._prepare(node)
        except BaseException:
            self.close()
            raise

    def _begin_new(self, node: Node, client: int) -> str:
        """Its name meanwhile."""
        begin = f"{UNFINISHED}{self._name.image}-"
        for left in module("rbd").RBD().list(self._ioctx):
            if (found := ends_with_owner(left, begin)) and self._is_left(left, found):
                _patiently(partial(module("rbd").RBD().remove, self._ioctx, left), self._over)
                _log.info("removed what a dead restore left", image=left)
        name = begin + owner(client)
        _create(self._ioctx, name, node)
        return name

    def _is_left(self, name: str, found: str) -> bool:
        with module("rbd").Image(self._ioctx, name, read_only=True) as image:
            return not is_alive(found, image)

    def _prepare(self, node: Node) -> None:
        _patiently(self._refuse_used, self._over)
        if not self.is_new:
            self._image.resize(0)  # what it has, and what it is a clone of, is gone: reads as zeros
            self._image.resize(node.size)

    def _refuse_used(self) -> None:
        watchers = [watcher["addr"] for watcher in self._image.watchers_list()]
        if len(watchers) > 1:
            raise module("rbd").ImageBusy(f"watched by {', '.join(watchers)}", errno=errno.EBUSY)

    def write(self, offset: int, data: memoryview) -> None:
        with telling(self._what):
            self._image.write(bytes(data), offset)

    def clear(self, offset: int, length: int) -> None:
        """Nothing is there."""

    def finish(self, size: int) -> list[str]:
        with telling(self._what):
            self._image.flush()
            if self.is_new:
                self._image.close()
                module("rbd").RBD().rename(self._ioctx, self._target, self._name.image)
                self._target = self._name.image
        return []

    def close(self) -> None:
        """A new image that is not complete is removed."""
        self._closing.close()

    def _let_go(self) -> None:
        with telling(self._what):
            self._image.close()
            if self._target != self._name.image:
                module("rbd").RBD().remove(self._ioctx, self._target)
