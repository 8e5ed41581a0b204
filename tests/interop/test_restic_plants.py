"""Whatever is planted in a repository, restic's check calls it damaged where Snappy's does, and sound where it does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support import plants, tools
from tests.support.engine import PASSWORD
from tests.support.plants import Files, Oracle
from tests.support.restic import Restic

SEEDS = range(1000, 1000 + 2 * len(plants.PLANTS))


def write(files: Files, folder: Path) -> None:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    (folder / "locks").mkdir(exist_ok=True)


@pytest.mark.restic_newest  # the older one tries again, for minutes, to read what is cut short
def test_restic_agrees(tmp_path: Path) -> None:
    original = plants.make()
    for seed in SEEDS:
        planted = plants.planted(original, seed)
        oracle = Oracle(original, planted.files)
        damage = oracle.expected().damage
        if not oracle.opens or any(kind == "key-damaged" for kind, _ in damage):
            continue  # restic looks at as many keys as it needs to open the repository
        if "another_shelf" in planted.name:
            continue  # restic takes it for the pack when it lists, and not when it reads
        write(planted.files, tmp_path / "repository")
        restic = Restic(tools.newest_restic(), tmp_path / "repository", PASSWORD, tmp_path / "cache")
        done = restic.attempt("check", "--read-data", "--no-cache", "--no-lock")
        assert (done.returncode != 0) == bool(damage), (planted.name, damage, done.stdout + done.stderr)
        shutil.rmtree(tmp_path / "repository")
