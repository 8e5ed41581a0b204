"""restic, both versions, judges a repository that Snappy filled over the bus, in a folder and on S3; and the two take
turns in one repository.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.support.compare import compare
from tests.support.odd_tree import make_odd_tree
from tests.support.restic import Restic
from tests.support.site import Site, site
from tests.support.weed import Weed, weed_server

pytestmark = pytest.mark.timeout(240)
OLD = tuple(f"restic 0.{minor}." for minor in range(16))
"""They replace bytes of a link's target that are not UTF-8."""


@pytest.fixture(scope="module")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    with weed_server(tmp_path_factory.mktemp("weed")) as running:
        yield running


class Ground:
    """A running site with an odd tree to back up, and restic on the same repository."""

    def __init__(self, running: Site, restic: Callable[[str], Restic], tree: Path) -> None:
        self.site, self.tree = running, tree
        self.restic = restic(running.repository_password)

    def run(self, kind: str, **command: Any) -> dict[str, Any]:
        event = asyncio.run(self.site.run(kind, **command))
        result: dict[str, Any] = event["data"]["result"]
        assert event["type"] == f"io.snappy.{kind}.succeeded", event
        assert result["warning_count"] == 0, result
        return result

    def back_up(self, **command: Any) -> dict[str, Any]:
        return self.run("backup", options={"paths": [str(self.tree)]}, host="here", **command)

    def listed(self, snapshot: str) -> list[dict[str, Any]]:
        """What restic lists of the tree, without the folders above it: they are everybody's."""
        nodes = [line for line in self.restic.json("ls", snapshot) if line.get("path", "").startswith(f"{self.tree}")]
        assert len(nodes) > 20
        return nodes


def s3_place(weed: Weed, name: str) -> tuple[dict[str, Any], str, dict[str, str]]:
    """A new bucket as Snappy's target, as restic's repository, and restic's environment."""
    fsspec.filesystem("s3", skip_instance_cache=True, **weed.options).mkdir(name)
    environment = {"AWS_ACCESS_KEY_ID": weed.access_key, "AWS_SECRET_ACCESS_KEY": weed.secret_key}
    return {"url": f"s3://{name}/site1", **weed.options}, f"s3:{weed.endpoint}/{name}/site1", environment


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def ground(request: pytest.FixtureRequest, restic_program: str, tmp_path: Path) -> Iterator[Ground]:
    if request.param == "s3":
        name = f"bucket-{abs(hash(tmp_path)):x}"
        target, repository, environment = s3_place(request.getfixturevalue("weed"), name)
    else:
        target, repository, environment = {"url": str(tmp_path / "repository")}, str(tmp_path / "repository"), {}

    def restic(password: str) -> Restic:
        return Restic(restic_program, repository, password, tmp_path / "cache", **environment)

    make_odd_tree(tmp_path / "data" / "tree")
    if restic("").run("version").decode().startswith(OLD):
        (tmp_path / "data" / "tree" / "odd target").unlink()
    with site(tmp_path, target) as running:
        yield Ground(running, restic, tmp_path / "data" / "tree")


def same(ground: Ground, restored: Path) -> None:
    found = compare(ground.tree, Path(f"{restored}{ground.tree}"))
    assert found.same, found.differences
    assert found.files > 20


def test_restic_accepts_and_both_take_turns(ground: Ground, tmp_path: Path) -> None:
    first = ground.back_up(init=True)
    ground.restic.check()
    ground.restic.run("restore", first["snapshot"], "--target", tmp_path / "by-restic")
    same(ground, tmp_path / "by-restic")

    (ground.tree / "added").write_bytes(b"added")
    summary = ground.restic.json("backup", "--host", "here", ground.tree)[-1]
    assert (summary["files_new"], summary["files_changed"]) == (1, 0)
    after = ground.back_up()
    assert (after["files_new"], after["files_changed"], after["bytes_read"]) == (0, 0, 0)
    assert ground.listed(after["snapshot"]) == ground.listed(summary["snapshot_id"])
    ground.restic.check()

    back = tmp_path / "back"
    ground.run("restore", snapshot=summary["snapshot_id"], options={"to": str(back), "allow_devices": True})
    same(ground, back)
