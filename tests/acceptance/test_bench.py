"""The bench, tiny: every corpus and every work, Snappy and all peers that are there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]


def bench(folder: Path, *words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench", *words, "--folder", str(folder), "--pairs", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (results,) = (folder / "results").iterdir()
    ElementTree.parse(results / "bench.svg")
    assert (results / "table.md").read_text().rstrip().endswith(done.stdout.rstrip())
    assert not list(folder.glob("work-*"))
    found: dict[str, Any] = json.loads((results / "bench.json").read_text())
    return found


@pytest.mark.long
@pytest.mark.restic_newest
def test_a_tree_is_measured_beside_restic(tmp_path: Path) -> None:
    words = ["--scale", "0.001", "--target", "local", "--duplicates", "0", "--peers", "restic"]
    found = bench(tmp_path, "tree", *words, "--work", "first", "unchanged")
    works = {row["work"]: row for row in found["rows"]}
    for row in works.values():
        assert row["left_out"] == {}
        (ours,), (theirs,) = row["runs"]["snappy"], row["runs"]["restic"]
        assert row["wall_ratio"]["median"] == pytest.approx(ours["wall"] / theirs["wall"], rel=0.02)
        assert set(ours["parts"]) == {"core", "audit", "source", "target", "nats-server", "command"}
        assert 1e8 < ours["peak"] < 1e9
    new = {work: row["runs"]["snappy"][0]["details"]["files_new"] for work, row in works.items()}
    assert new == {"first": 60, "unchanged": 0}


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.s3
@pytest.mark.restic_newest
@pytest.mark.parametrize("name", ["tree", "tiny", "noise", "image", "million"])
def test_every_corpus_at_every_target(name: str, tmp_path: Path) -> None:
    scale = "0.01" if name in ("noise", "image") else "0.001"
    found = bench(tmp_path, name, "--scale", scale, "--duplicates", "0", "2")
    for row in found["rows"]:
        reasons = {side: why for side, why in row["left_out"].items() if side != "borg"}
        assert reasons == {}, row
    assert found["stored"]
