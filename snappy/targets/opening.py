"""Opens what a target keeps its objects in: any fsspec URL, with the options that make it safe to rely on."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import fsspec
from fsspec import AbstractFileSystem
from fsspec.core import split_protocol

from snappy.errors import UsageError
from snappy.targets.local import DurableLocalFileSystem, sweep
from snappy.targets.policy import APPEND_ONLY, PolicyFileSystem

LOCAL = ("file", "local")
OWN = {
    "s3": ("s3", "BucketFileSystem"),
    "s3a": ("s3", "BucketFileSystem"),
    "sftp": ("sftp", "SftpFileSystem"),
    "ssh": ("sftp", "SftpFileSystem"),
    "swift": ("swift", "SwiftFileSystem"),
    "webdav": ("webdav", "WebDavFileSystem"),
    "webdavs": ("webdav", "WebDavFileSystem"),
}
"""Filesystems of our own: the module, which is also the extra that brings what it needs, and the class."""


def open_target(url: str, options: dict[str, Any] | None = None, rights: str = APPEND_ONLY) -> PolicyFileSystem:
    """The files at ``url`` under ``rights``; what a crash left half-written there is removed.

    ``options`` go to the fsspec filesystem (``key``, ``secret``, ``endpoint_url``, ...). Raises UsageError where no
    filesystem has that protocol, or the package that brings it is missing.
    """
    fs, root = open_storage(url, options or {})
    if isinstance(fs, DurableLocalFileSystem):
        sweep(Path(root))
    return PolicyFileSystem(fs, root, rights)


def open_storage(url: str, options: dict[str, Any]) -> tuple[AbstractFileSystem, str]:
    """The filesystem that ``url`` names, and the path in it."""
    protocol = split_protocol(url)[0] or "file"
    if protocol in LOCAL:
        fs: AbstractFileSystem = DurableLocalFileSystem(**options)
    elif protocol in OWN:
        fs = _own(protocol, url, options)
    else:
        fs = _remote(protocol, options)
    return fs, fs._strip_protocol(url)


def _own(protocol: str, url: str, options: dict[str, Any]) -> AbstractFileSystem:
    extra, name = OWN[protocol]
    try:
        kind = getattr(import_module(f"snappy.targets.{extra}"), name)
    except ImportError as error:
        hint = f"pip install 'snappy-backup[{extra}]'"
        raise UsageError(f"{protocol}:// needs the package {error.name}", hint=hint) from error
    try:
        fs: AbstractFileSystem = kind(**(kind._get_kwargs_from_urls(url) | options))
    except TypeError as error:
        raise UsageError(f"the storage_options of {protocol}:// are others: {error}") from error
    return fs


def _remote(protocol: str, options: dict[str, Any]) -> AbstractFileSystem:
    try:
        fs: AbstractFileSystem = fsspec.filesystem(protocol, skip_instance_cache=True, **options)
    except (ValueError, ImportError) as error:
        raise UsageError(f"no filesystem serves {protocol}:// here: {error}") from error
    return fs
