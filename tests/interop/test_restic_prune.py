"""A prune plans what restic plans, frees what restic frees, and leaves what restic calls sound."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from snappy.repository.prune_plan import PruneStats
from snappy.repository.store import FileType
from tests.support import tools
from tests.support.engine import PASSWORD
from tests.support.littered import WHOLE_PACKS, litter, prune, store_of
from tests.support.restic import Restic

OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"max_unused": "0"},
    {"max_unused": "30%"},
    {"max_unused": "15k"},
    {"max_unused": "unlimited"},
    {"max_unused": "0", "max_repack_size": "50k"},
    {"max_repack_size": "0"},
    {"repack_smaller_than": "25k"},
    {"repack_smaller_than": "1k", "max_unused": "0"},
    {"repack_cacheable_only": True},
    {"repack_uncompressed": True},
)

BLOBS = {
    "used": "used",
    "unused": "unused",
    "total": "total",
    "repack": "to repack",
    "repack_remove": "this removes",
    "remove_total": "total prune",
    "remaining": "remaining",
}
PACKS = {
    "used": "totally used packs",
    "partly_used": "partly used packs",
    "unused": "unused packs",
    "keep": "to keep",
    "repack": "to repack",
    "remove": "to delete",
}
UNITS = {"B": 1, "KiB": 1024, "MiB": 1 << 20}


def flags(options: dict[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", *([] if value is True else [value])]
    return words


def restic_on(folder: Path, cache: Path) -> Restic:
    return Restic(tools.newest_restic() or "", folder, PASSWORD, cache)


def told(said: str) -> tuple[dict[str, int], dict[str, float], dict[str, int]]:
    """Blobs, bytes and packs in restic's report of a plan; what it does not mention is 0."""
    blobs, sizes, packs = dict.fromkeys(BLOBS, 0), dict.fromkeys(BLOBS, 0.0), dict.fromkeys(PACKS, 0)
    for name, word in BLOBS.items():
        if match := re.search(rf"^{word}: +(\d+) blobs / ([\d.]+) (\w+)$", said, re.MULTILINE):
            blobs[name], sizes[name] = int(match[1]), float(match[2]) * UNITS[match[3]]
    for name, word in PACKS.items():
        if match := re.search(rf"^{word}: +(\d+)( packs)?$", said, re.MULTILINE):
            packs[name] = int(match[1])
    return blobs, sizes, packs


def stored(folder: Path) -> int:
    return sum(size for _, size in store_of(folder).list(FileType.PACK))


@pytest.fixture(scope="module")
def unused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No blob is there twice: which copy stays, restic leaves to chance."""
    folder = tmp_path_factory.mktemp("unused") / "repository"
    litter(store_of(folder), twice=False)
    return folder


@pytest.mark.restic_newest
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: " ".join(flags(options)) or "default")
def test_the_same_plan(unused: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    stats: PruneStats = prune(store_of(unused), dry_run=True, **options).stats
    said = restic_on(unused, tmp_path / "cache").run("prune", "-v", "--dry-run", *flags(options)).decode()
    blobs, sizes, packs = told(said)
    assert {name: getattr(stats.blobs, name) for name in BLOBS} == blobs
    assert {name: getattr(stats.bytes, name) for name in BLOBS} == pytest.approx(sizes, abs=1)
    assert {name: getattr(stats.packfiles, name) for name in PACKS} == packs


@pytest.mark.restic_newest
@pytest.mark.parametrize("options", OPTIONS[:3], ids=lambda options: " ".join(flags(options)) or "default")
def test_the_same_space(tmp_path: Path, options: dict[str, Any]) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    litter(store_of(ours))
    before = stored(ours)
    shutil.copytree(ours, theirs)
    done = prune(store_of(ours), packs=WHOLE_PACKS, **options)
    restic_on(theirs, tmp_path / "cache").run("prune", *flags(options))
    assert before - stored(ours) == pytest.approx(before - stored(theirs), rel=0.02)
    assert done.packs_deleted == done.stats.packfiles.remove_total + done.stats.packfiles.repack
    prune(store_of(ours), packs=WHOLE_PACKS, **options)  # joins the small packs that the first left, where they are ten
    assert prune(store_of(ours), packs=WHOLE_PACKS, **options).packs_deleted == 0
    restic_on(ours, tmp_path / "cache").check()
