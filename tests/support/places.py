"""Places where a repository can lie, as Snappy's target, as restic's repository, and as the bytes that lie there."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec

from tests.support.restic import Restic
from tests.support.weed import Weed


@dataclass(frozen=True)
class Place:
    """``target`` is what a target service is told; ``url`` and ``environment`` what restic is told."""

    target: dict[str, Any]
    url: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def root(self) -> str:
        return str(self.target["url"]).removeprefix("s3://")

    def restic(self, program: str, password: str, cache: Path) -> Restic:
        return Restic(program, self.url, password, cache, **self.environment)

    def objects(self, below: str = "") -> dict[str, bytes]:
        """All that lies there, read past every service: each path relative to the repository, and its bytes."""
        fs, root = self._files(), f"{self.root}/{below}".rstrip("/")
        paths = fs.find(root)
        contents = fs.cat(paths) if paths else {}
        return {path.removeprefix(self.root).lstrip("/"): content for path, content in contents.items()}

    def _files(self) -> fsspec.AbstractFileSystem:
        if not self.environment:
            return fsspec.filesystem("file")
        options = {name: value for name, value in self.target.items() if name != "url"}
        return fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False, **options)


def in_folder(folder: Path) -> Place:
    return Place({"url": str(folder / "repository")}, str(folder / "repository"))


def in_bucket(weed: Weed) -> Place:
    """Below a prefix in a new bucket."""
    bucket = f"bucket-{secrets.token_hex(6)}"
    fsspec.filesystem("s3", skip_instance_cache=True, **weed.options).mkdir(bucket)
    environment = {"AWS_ACCESS_KEY_ID": weed.access_key, "AWS_SECRET_ACCESS_KEY": weed.secret_key}
    target = {"url": f"s3://{bucket}/site1", **weed.options}
    return Place(target, f"s3:{weed.endpoint}/{bucket}/site1", environment)
