"""Places where a repository can lie, as Snappy's target, as restic's repository, and as the bytes that lie there."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec

from tests.support.restic import Restic
from tests.support.weed import Weed

LOCK = re.compile("locks/([0-9a-f]{64})")


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
        names = {f"{self.root}/{name}": name for name in self.names() if name.startswith(below)}
        return {names[path]: content for path, content in self.files().cat(list(names)).items()} if names else {}

    def put(self, objects: dict[str, bytes]) -> None:
        """The other way round."""
        files = self.files()
        for name, content in objects.items():
            files.pipe_file(f"{self.root}/{name}", content)

    def locks(self) -> list[str]:
        """The names of the repository's locks; one that is still being written has none."""
        return [match[1] for match in map(LOCK.fullmatch, self.names()) if match]

    def size(self) -> int:
        """Bytes of all objects."""
        return sum(int(item["size"]) for item in self._found().values())

    def names(self, files: fsspec.AbstractFileSystem | None = None) -> list[str]:
        """The paths of all objects, relative to the repository; asked by ``files``, a client that is there."""
        return [path.removeprefix(f"{self.root}/") for path in self._found(files)]

    def _found(self, files: fsspec.AbstractFileSystem | None = None) -> dict[str, Any]:
        """All objects. A listing of one folder is not to be had of an S3 server that keeps some for empty ones."""
        found = (files or self.files()).find(self.root, detail=True)
        return {path: item for path, item in found.items() if item["type"] == "file"}

    def files(self) -> fsspec.AbstractFileSystem:
        """A client of its own, which for S3 takes a while to make."""
        if not self.environment:
            return fsspec.filesystem("file", auto_mkdir=True)
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
