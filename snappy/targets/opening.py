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
S3 = ("s3", "s3a")
OWN = {
    "sftp": ("sftp", "SftpFileSystem"),
    "ssh": ("sftp", "SftpFileSystem"),
    "swift": ("swift", "SwiftFileSystem"),
    "webdav": ("webdav", "WebDavFileSystem"),
    "webdavs": ("webdav", "WebDavFileSystem"),
}
"""Filesystems of our own: the module, which is also the extra that brings what it needs, and the class."""

S3_TIMEOUTS: dict[str, Any] = {
    "connect_timeout": 5,
    "read_timeout": 30,
    "retries": {"max_attempts": 2, "mode": "standard"},
    "max_pool_connections": 32,
}
"""Without these a hung endpoint holds an operation for minutes."""
S3_ATTEMPTS = 3


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
        fs = _remote(protocol, _safe_options(protocol, options))
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
        if protocol in S3:
            return _s3(options)
        fs: AbstractFileSystem = fsspec.filesystem(protocol, skip_instance_cache=True, **options)
    except (ValueError, ImportError) as error:
        raise UsageError(f"no filesystem serves {protocol}:// here: {error}") from error
    return fs


def _s3(options: dict[str, Any]) -> AbstractFileSystem:
    ours = import_module("snappy.targets.s3_session")
    if not options.keys() & {"session", "profile"}:
        options = options | {"session": ours.session()}
    fs: AbstractFileSystem = ours.S3(skip_instance_cache=True, **options)
    fs.retries = S3_ATTEMPTS
    return fs


def _safe_options(protocol: str, options: dict[str, Any]) -> dict[str, Any]:
    """Other writers' objects must show at once, so nothing is remembered of a listing."""
    if protocol not in S3:
        return options
    config = S3_TIMEOUTS | options.get("config_kwargs", {})
    return {"use_listings_cache": False, **options, "config_kwargs": config}
