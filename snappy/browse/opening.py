"""Opens a repository for browsing: anywhere fsspec reaches, with a password, and no bus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from snappy.repository.repo import Repository
from snappy.repository.store import Store


def open_repository(
    url: str, password: str, *, storage_options: dict[str, Any] | None = None, cache: Path | None = None
) -> Repository:
    """The repository at a URL or an absolute path. ``cache``: a folder in which its index is kept from time to time.

    Raises NotARepository, WrongPassword, other RepositoryErrors, and StorageError.
    """
    fs, root = url_to_fs(url, **(storage_options or {}))
    return Repository.open(Store(fs, root), password, cache=cache)
