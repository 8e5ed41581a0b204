"""Damage planted in packs: a drill of a snapshot fails if and only if it needs what is lost, and names all of that."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from snappy.errors import Damaged
from snappy.jobs.messages import Result
from snappy.repository.format import BlobId, BlobType
from tests.support.drills import Drills
from tests.support.plants import Files, Oracle, Original, make, store_of

PLANTS = 12


@pytest.fixture(scope="module")
def original() -> Original:
    return make()


def damage_packs(original: Original, chance: random.Random) -> Files:
    """One to three of them: gone, cut short, or with other bytes somewhere."""
    files = dict(original.files)
    for path in chance.sample(original.of("data"), chance.randrange(1, 4)):
        how = chance.choice(("gone", "cut", "bit", "block"))
        if how == "gone":
            del files[path]
        elif how == "cut":
            files[path] = files[path][: chance.randrange(len(files[path]))]
        else:
            data = bytearray(files[path])
            start = chance.randrange(len(data))
            width = 1 if how == "bit" else 300
            data[start : start + width] = bytes(byte ^ 1 for byte in data[start : start + width])
            files[path] = bytes(data)
    return files


def lost(oracle: Oracle, root: BlobId) -> Iterator[str]:
    """What a snapshot needs, as far as its trees say, and no pack has whole."""
    copies = [(pack, place) for pack in oracle.listed for place in oracle.original.packs[pack]]
    whole = {place.blob for pack, place in copies if oracle.is_whole(pack, place)}
    trees, seen = [root], set[BlobId]()
    while trees:
        tree = trees.pop()
        if (BlobType.TREE, tree) not in whole:
            yield tree.hex()
        elif tree not in seen:
            for node in oracle.original.trees[tree]:
                trees += [node.subtree] if node.subtree else []
                yield from (blob.hex() for blob in node.content or () if (BlobType.DATA, blob) not in whole)
        seen.add(tree)


async def drilled(service: Drills, snapshot: str) -> Result:
    """What it says, however it ends."""
    try:
        return await service.run(snapshot=snapshot)
    except Damaged as error:
        result: Result = error.details["result"]
        assert result.findings
        return result


@pytest.mark.parametrize("seed", range(PLANTS))
async def test_a_drill_names_what_is_lost(original: Original, tmp_path: Path, seed: int) -> None:
    files = damage_packs(original, random.Random(seed))
    oracle = Oracle(original, files)
    service = Drills(store_of(files), tmp_path / "work")
    for snapshot, root in original.roots.items():
        result = await drilled(service, snapshot)
        assert {finding.id for finding in result.findings} == set(lost(oracle, root))
        assert result.finding_count == len(result.findings)
    assert service.left() == []
