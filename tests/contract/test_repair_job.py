"""Repairs over the bus, under real permissions: who may have nothing deleted repairs what needs no deletion."""

from __future__ import annotations

from pathlib import Path

import pytest

from snappy.config import Allow, Config, Core, SourceService, TargetService
from snappy.jobs.result_words import Repaired
from snappy.jobs.states import State
from tests.contract.test_check_job import done_of
from tests.support.stack import in_process


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    everything = Allow(kinds=["*"], plugins=["*"], targets=["vault"], read=["/"])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_bytes(b"content")
    return Config(
        state_dir=str(tmp_path / "state"),
        core=Core(may_delete=["alice"]),
        source={"site": SourceService(allow={"alice": everything, "bob": everything}, workers=1)},
        target={"vault": TargetService(url=str(tmp_path / "vault"), rights="rlwd")},
    )


async def test_only_who_may_delete_has_what_is_useless_removed(settings: Config, tmp_path: Path) -> None:
    folder, vault = str(tmp_path / "data"), tmp_path / "vault"
    async with (
        in_process(settings, ["alice", "bob"], passwords=lambda _key: "right") as inside,
        inside.client("alice") as alice,
        inside.client("bob") as bob,
    ):
        await done_of(alice, "backup", init=True, options={"paths": [folder]})
        (index,) = (vault / "index").iterdir()
        index.chmod(0o600)
        index.write_bytes(b"damaged")
        added = await done_of(bob, "repair", what="index")
        left = {path.name for path in (vault / "index").iterdir()}
        removed = await done_of(alice, "repair", what="index")
        checked = await done_of(bob, "check", read_data=True)
    assert (added.state, removed.state, checked.state) == (State.SUCCEEDED,) * 3, (added.error, removed.error)
    assert added.result is not None
    assert removed.result is not None
    assert added.result.repair == Repaired(what="index", written=1)
    assert ("index-left", index.name) in [(found.kind, found.id) for found in added.result.findings]
    assert index.name in left
    assert removed.result.repair == Repaired(what="index", removed=1)
    assert not index.exists()
    assert list((vault / "locks").iterdir()) == []
