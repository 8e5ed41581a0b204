"""Which image a Kubernetes volume is: found from its PersistentVolumeClaim, for in-tree volumes and those of ceph-csi.

The fields are those of the Kubernetes API's ``PersistentVolume``, and of ceph-csi's ``volumeAttributes``.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import msgspec

from snappy.decoding import from_json
from snappy.errors import SourceDenied, SourceError, SourceMissing, SourceUnavailable
from snappy.sources.plugins.rbd_cluster import ImageName, RbdSettings, check_names

CSI_DRIVER = "rbd.csi.ceph.com"
"""Rook puts its own namespace and a dot before it."""
PREFIX = "csi-vol-"
UUID_SIZE = 36


Answer = TypeVar("Answer", bound=msgspec.Struct)


class _Rbd(msgspec.Struct):
    image: str
    pool: str = "rbd"


class _Csi(msgspec.Struct, rename="camel"):
    driver: str
    volume_handle: str
    volume_attributes: dict[str, str] = {}


class _VolumeSpec(msgspec.Struct):
    rbd: _Rbd | None = None
    csi: _Csi | None = None


class Volume(msgspec.Struct):
    """A PersistentVolume, as far as it says which image it is."""

    spec: _VolumeSpec


class _ClaimSpec(msgspec.Struct, rename="camel"):
    volume_name: str = ""


class _Claim(msgspec.Struct):
    spec: _ClaimSpec


class VolumeClaim(NamedTuple):
    """A PersistentVolumeClaim whose image is meant, whichever that is."""

    cluster: str
    namespace: str
    name: str

    @classmethod
    def parse(cls, cluster: str, text: str) -> VolumeClaim:
        """``NAMESPACE/NAME``. Raises :class:`BadOptions`."""
        namespace, _, name = text.partition("/")
        check_names(cluster, namespace, name)
        return cls(cluster, namespace, name)

    @property
    def claim(self) -> str:
        return f"rbd+pvc://{self.cluster}/{self.namespace}/{self.name}"

    @property
    def parts(self) -> list[str]:
        """Of its path in a snapshot."""
        return [self.cluster, "persistentvolumeclaims", self.namespace, self.name]

    def found(self, settings: RbdSettings) -> ImageName:
        """Its image. Blocks. Raises :class:`SourceMissing`, :class:`SourceDenied`, :class:`SourceUnavailable`."""
        path = f"api/v1/namespaces/{self.namespace}/persistentvolumeclaims/{self.name}"
        volume = _read(settings, path, _Claim).spec.volume_name
        if not volume:
            raise SourceMissing(f"the volume claim {self.namespace}/{self.name} is not bound to a volume yet")
        return image_of(_read(settings, f"api/v1/persistentvolumes/{volume}", Volume), volume, self.cluster)


class KnownClaim(NamedTuple):
    """A claim whose image is known already."""

    of: VolumeClaim
    image: ImageName

    @property
    def claim(self) -> str:
        return self.of.claim

    @property
    def parts(self) -> list[str]:
        """Of its path in a snapshot."""
        return self.of.parts

    def found(self, settings: RbdSettings) -> ImageName:
        """Its image."""
        return self.image


def image_of(volume: Volume, name: str, cluster: str) -> ImageName:
    """The image that a volume of that name is. Raises :class:`SourceError` for one of another kind."""
    rbd, csi = volume.spec.rbd, volume.spec.csi
    if rbd is not None:
        return ImageName(cluster, rbd.pool, "", rbd.image).check()
    if csi is None or not (csi.driver == CSI_DRIVER or csi.driver.endswith(f".{CSI_DRIVER}")):
        raise SourceError(f"the volume {name} is no RBD image", hint="back up its files from a pod that mounts it")
    about = csi.volume_attributes
    return ImageName(cluster, about.get("pool", ""), about.get("radosNamespace", ""), _csi_image(csi)).check()


def _csi_image(csi: _Csi) -> str:
    about = csi.volume_attributes
    if about.get("staticVolume") == "true":
        return csi.volume_handle
    made = about.get("volumeNamePrefix", PREFIX) + csi.volume_handle[-UUID_SIZE:]
    return about.get("imageName", made)  # older versions do not say it


def _read(settings: RbdSettings, path: str, schema: type[Answer]) -> Answer:
    try:
        return from_json(_get(settings, path), schema)
    except msgspec.DecodeError as error:
        raise SourceUnavailable(f"what answers at {settings.kubernetes} is not what it should be: {error}") from error


def _get(settings: RbdSettings, path: str) -> bytes:
    folder = Path(settings.service_account)
    try:
        token, authority = (folder / "token").read_text().strip(), folder / "ca.crt"
        context = ssl.create_default_context(cafile=str(authority)) if authority.exists() else None
        request = Request(f"{settings.kubernetes}/{path}", headers={"Authorization": f"Bearer {token}"})
        with urlopen(request, timeout=settings.timeout, context=context) as answer:
            body: bytes = answer.read()
            return body
    except HTTPError as error:
        raise _refused(error, path) from error
    except URLError as error:
        raise SourceUnavailable(f"the Kubernetes API does not answer: {error.reason}") from error
    except OSError as error:
        raise SourceDenied(f"the Kubernetes API cannot be asked: {error}", hint="see `service_account`") from error


def _refused(error: HTTPError, path: str) -> SourceError:
    kind, _, name = path.rpartition("/")
    if error.code == 404:
        return SourceMissing(f"Kubernetes has no {name} among its {kind.rpartition('/')[2]}")
    if error.code in (401, 403):
        return SourceDenied(
            f"the Kubernetes API does not let the service account read {path}",
            hint="it needs `get` on persistentvolumeclaims and persistentvolumes",
        )
    return SourceUnavailable(f"the Kubernetes API answers {error.code} to {path}")
