"""Where files are: an absolute local path, or the URL of any fsspec filesystem.

Credentials never stand in a place: a filesystem finds them in the environment or configuration of the service
(``AWS_*``, ``FSSPEC_*``, ``~/.config/fsspec``), never in a job.
"""

from __future__ import annotations

import os
from functools import reduce
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from fsspec.core import url_to_fs

from snappy.errors import BadOptions
from snappy.repository.paths import ROOT, join

LOCAL_SCHEMES = ("file://", "local://")


class Local(NamedTuple):
    """A path of this machine, absolute, with the symlinks above its last name resolved."""

    path: bytes

    @property
    def claim(self) -> str:
        return os.fsdecode(self.path)


class Remote(NamedTuple):
    """An object or a prefix on another filesystem."""

    url: str

    @property
    def claim(self) -> str:
        return self.url

    @property
    def path(self) -> bytes:
        """Its path in a snapshot: ``s3://bucket/a/b`` becomes ``/s3/bucket/a/b``."""
        return reduce(join, (os.fsencode(name) for name in _names(self.url)), ROOT)

    def open(self) -> tuple[Any, str]:
        """The filesystem, not shared with another job, and the path on it. Raises :class:`BadOptions`."""
        try:
            found: tuple[Any, str] = url_to_fs(self.url, skip_instance_cache=True)
        except (ImportError, ValueError, TypeError) as error:
            raise BadOptions(f"{self.url}: {error}") from error
        return found


Place = Local | Remote


def parse_place(text: str) -> Place:
    """Read a path or URL. Symlinks above the last name are followed now, and not again. Raises :class:`BadOptions`."""
    for scheme in LOCAL_SCHEMES:
        if text.startswith(scheme):
            return _local(text.removeprefix(scheme))
    return _remote(text) if "://" in text else _local(text)


def folder_claim(text: str) -> str:
    """What a rule is asked about a local folder: where it is, all symlinks followed. Raises :class:`BadOptions`."""
    place = parse_place(text)
    if not isinstance(place, Local):
        raise BadOptions(f"{text} is no local folder")
    return os.path.realpath(place.claim)


def claimed_place(claim: str) -> Place:
    """The place of a claim, as it stands: what the rules were asked about, however it is linked by now."""
    return Local(os.fsencode(claim)) if claim.startswith("/") else _remote(claim)


def _local(text: str) -> Local:
    if not text.startswith("/"):
        raise BadOptions(f"{text!r} is not an absolute path")
    if "\0" in text:
        raise BadOptions("a path cannot contain a NUL character")
    path = os.path.normpath(os.fsencode(text)).replace(b"//", b"/")
    folder, name = os.path.split(path)
    return Local(os.path.join(os.path.realpath(folder), name))


def _remote(url: str) -> Remote:
    if "::" in url:
        raise BadOptions(f"{url}: chained URLs are not supported")
    parts = urlsplit(url)
    if parts.password is not None:
        raise BadOptions("a URL may not hold a password", hint="put it in the environment of the source service")
    if not {".", ".."}.isdisjoint(parts.path.split("/")):
        raise BadOptions(f"{url}: '.' and '..' are not allowed")
    return Remote(url.rstrip("/") if parts.netloc else url)


def _names(url: str) -> list[str]:
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    return [scheme, *(name for name in (host.rpartition("@")[2], *path.split("/")) if name)]
