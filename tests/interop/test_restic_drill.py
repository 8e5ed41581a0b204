"""What restic backed up is proven as well, to the last of its oddities."""

from __future__ import annotations

from pathlib import Path

import fsspec

from snappy.repository.store import Store
from tests.support.drills import Drills
from tests.support.engine import PASSWORD
from tests.support.odd_tree import make_odd_tree
from tests.support.restic import Restic


async def test_an_odd_tree_of_restics(restic_program: str, tmp_path: Path) -> None:
    make_odd_tree(tmp_path / "tree")
    restic = Restic(restic_program, tmp_path / "repo", PASSWORD, tmp_path / "cache")
    restic.run("init")
    restic.run("backup", tmp_path / "tree")
    service = Drills(Store(fsspec.filesystem("file"), str(tmp_path / "repo")), tmp_path / "work")
    whole = await service.run()
    half = await service.run(sample="50%")
    assert whole.drill
    assert half.drill
    assert (whole.drill.faults, half.drill.faults) == ([], [])
    assert 0 < half.files < whole.files
    assert whole.bytes_processed / 2 <= half.bytes_processed <= whole.bytes_processed
