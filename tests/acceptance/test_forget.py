"""``snappy forget`` as a user runs it, alone and with ``snappy up``; restic sees the same."""

from __future__ import annotations

import json

import pytest

from tests.support import tools
from tests.support.restic import Restic
from tests.support.stack import Shell


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """With three snapshots; the last test forgets one of them."""
    made = Shell(tmp_path_factory.mktemp("forget"))
    made.found("repo")
    data = made.folder / "data"
    data.mkdir()
    for number in range(3):
        (data / "file").write_bytes(bytes([number]) * 100_000)
        made.with_password("backup", "./data", "--to", "./repo", "--tag", f"t{number}").expect(0)
    return made


def test_what_is_refused(shell: Shell) -> None:
    assert "no policy" in shell.with_password("forget", "--from", "./repo").expect(4).err
    assert (
        "all snapshots of the group"
        in shell.with_password("forget", "--from", "./repo", "--keep-tag", "none").expect(1).err
    )
    assert "no snapshot has an id" in shell.with_password("forget", "--from", "./repo", "0" * 8).expect(5).err
    assert len(shell.with_password("snapshots", "--from", "./repo", "--json").expect(0).json()) == 3


@pytest.mark.restic_newest
def test_what_is_forgotten_and_why_the_rest_is_not(shell: Shell) -> None:
    program = tools.newest_restic()
    assert program is not None
    restic = Restic(program, shell.folder / "repo", shell.password, shell.folder / "cache")
    wish = ("forget", "--keep-last", "1", "--keep-tag", "t0")
    tried = shell.with_password(*wish, "--target", "./repo", "--dry-run").expect(0)
    assert tried.out.count("keep ") == 2 + tried.out.count("would keep ")
    assert "last snapshot" in tried.out
    assert "has tags [t0]" in tried.out
    assert tried.out.splitlines()[-1] == "would keep 2 and remove 1 snapshots"
    theirs = json.loads(restic.run(*wish, "--dry-run", "--json"))
    ours = shell.with_password(*wish, "--from", "./repo", "--prune", "--json").expect(0).json()
    for groups in (theirs, ours):
        (group,) = groups
        for part in ("keep", "remove"):
            group[part] = [(snapshot["id"], snapshot["short_id"]) for snapshot in group[part]]
        group["reasons"] = [(each["snapshot"]["id"], each["matches"]) for each in group["reasons"]]
    assert ours == theirs
    assert {snapshot["id"] for snapshot in restic.json("snapshots")} == {name for name, _ in ours[0]["keep"]}
    restic.check()
