"""Connections to a Ceph cluster, and what its errors mean.

The modules ``rados`` and ``rbd`` come with Ceph's own packages, never from PyPI: where this Python does not see them,
those of the distribution are taken, if they were built for it.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from snappy.errors import (
    BadOptions,
    NoSpace,
    ProgramMissing,
    SourceDenied,
    SourceError,
    SourceMissing,
    SourceUnavailable,
)

MODULES = ("rados", "rbd")
"""Each needs those before it."""
PACKAGES = "/usr/lib/python3/dist-packages"
"""Where Debian and Ubuntu keep them."""
_loading = threading.Lock()

FORBIDDEN = set("/@\0")
TIMEOUTS = ("rados_mon_op_timeout", "rados_osd_op_timeout", "client_mount_timeout")


class RbdSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A Ceph cluster, as the source service reaches it."""

    conf: Annotated[str, Meta(description="the cluster's ceph.conf")] = "/etc/ceph/ceph.conf"
    user: Annotated[str, Meta(description="the user's name, without `client.`")] = "admin"
    keyring: Annotated[str, Meta(description="the file with its key; empty: where ceph.conf says")] = ""
    pools: Annotated[tuple[str, ...], Meta(description="the only pools that jobs may name; empty: all")] = ()
    timeout: Annotated[int, Meta(ge=1, description="seconds after which a cluster that is silent is given up")] = 60
    kubernetes: Annotated[str, Meta(description="the URL of the Kubernetes API that knows volume claims")] = (
        "https://kubernetes.default.svc"
    )
    service_account: Annotated[str, Meta(description="the folder with `token` and `ca.crt` for it")] = (
        "/var/run/secrets/kubernetes.io/serviceaccount"
    )


class ImageName(NamedTuple):
    """Which image is meant."""

    cluster: str
    """The name of the settings."""
    pool: str
    namespace: str
    image: str

    @property
    def parts(self) -> list[str]:
        """All that is not empty: its path in a snapshot."""
        return [part for part in self if part]

    def __str__(self) -> str:
        return "/".join(self.parts[1:])

    @property
    def claim(self) -> str:
        return f"rbd://{'/'.join(self.parts)}"

    def found(self, settings: RbdSettings) -> ImageName:
        """Itself; see :class:`snappy.sources.plugins.rbd_volumes.VolumeClaim`."""
        return self

    def check(self) -> ImageName:
        """The same. Raises :class:`BadOptions`."""
        check_names(self.cluster, self.pool, self.namespace or "none", self.image)
        return self


def check_names(*names: str) -> None:
    """Raise :class:`BadOptions` for what is no name, or would mean something else in a URL or a path."""
    for name in names:
        if not name or name in (".", "..") or FORBIDDEN & set(name):
            raise BadOptions(f"{name!r} is no name of a pool, namespace or image", hint="give `pool` and `image`")


def module(name: str) -> Any:
    """``rados`` or ``rbd``. Raises :class:`ProgramMissing`."""
    with _loading:
        if name not in sys.modules:
            for needed in MODULES[: MODULES.index(name) + 1]:
                _load(needed)
    return sys.modules[name]


def _load(name: str) -> None:
    try:
        importlib.import_module(name)
    except ImportError:
        _load_of_distribution(name)


def _load_of_distribution(name: str) -> None:
    spec = PathFinder.find_spec(name, [PACKAGES])
    if spec is None or spec.loader is None:
        raise ProgramMissing(
            f"the Python module {name} is not installed", hint=f"install your distribution's python3-{name}"
        )
    found = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(found)
    except ImportError as error:
        raise ProgramMissing(
            f"the Python module {name} does not load here: {error}", hint="run Snappy with the distribution's Python"
        ) from error
    sys.modules[name] = found


@contextmanager
def telling(what: str) -> Iterator[None]:
    """What goes wrong with ``what`` inside becomes one of our errors."""
    known = (module("rados").Error, module("rbd").Error)
    try:
        yield
    except known as error:
        raise translated(error, what) from error


def translated(error: Exception, what: str) -> Exception:
    """Ours for one of Ceph's."""
    number = abs(getattr(error, "errno", 0) or 0)
    if number == errno.ENOENT:
        return SourceMissing(f"{what} does not exist", hint="`rbd ls POOL` lists the images of a pool")
    if number in (errno.EACCES, errno.EPERM):
        return SourceDenied(f"{what}: the cluster does not let the user in", hint="see its caps with `ceph auth get`")
    if number in (errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ESHUTDOWN, errno.EHOSTUNREACH):
        return SourceUnavailable(f"{what}: the cluster does not answer", hint="`ceph -s` says how it is")
    if number in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"{what}: the cluster or its pool is full")
    if number == errno.EROFS:
        return SourceError(f"{what} cannot be written to", hint="is it mirrored from elsewhere? Then go there")
    if number == errno.EBUSY:
        return SourceError(f"{what} is in use: {error}", hint="unmap it, or stop its machine; see `rbd status`")
    return SourceError(f"{what}: {error}")


class Pool(NamedTuple):
    """A pool and namespace, as a ``rados.Ioctx``, and the number by which the cluster knows us meanwhile."""

    ioctx: Any
    client: int


class Connection:
    """To a cluster, from the first of its users to the last: each has a dozen threads and file descriptors."""

    def __init__(self, settings: RbdSettings) -> None:
        self.settings = settings
        self._lock, self._users, self._cluster = threading.Lock(), 0, None

    @contextmanager
    def used(self, name: str) -> Iterator[Any]:
        """The ``rados.Rados`` of the cluster with that name."""
        with self._lock:
            if not self._users:
                with telling(f"the Ceph cluster {name}"):
                    self._cluster = _connect(self.settings)
            self._users += 1
            cluster: Any = self._cluster
        try:
            yield cluster
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    cluster.shutdown()


@contextmanager
def pool(connection: Connection, name: ImageName) -> Iterator[Pool]:
    """Those of the image. Blocks. Raises what :func:`telling` makes."""
    settings = connection.settings
    if settings.pools and name.pool not in settings.pools:
        raise BadOptions(f"jobs may not name the pool {name.pool!r}", hint=f"they may: {', '.join(settings.pools)}")
    with connection.used(name.cluster) as cluster:
        with telling(f"the pool {name.pool}"):
            opened = cluster.open_ioctx(name.pool)
            opened.set_namespace(name.namespace)
        with opened:
            yield Pool(opened, cluster.get_instance_id())


def _connect(settings: RbdSettings) -> Any:
    rados = module("rados")
    chosen = dict.fromkeys(TIMEOUTS, str(settings.timeout))
    if settings.keyring:
        chosen["keyring"] = settings.keyring
    cluster = rados.Rados(conffile=settings.conf, rados_id=settings.user, conf=chosen)
    try:
        cluster.connect(timeout=settings.timeout)
    except BaseException:
        cluster.shutdown()
        raise
    return cluster
