"""Looking into backups with names instead of places: the source service reads, and the command needs no password."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.stack import Shell, site_up


def test_the_owner_looks_into_backups_and_who_may_not_browse_does_not(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shell = Shell(tmp_path_factory.mktemp("owner"), environ={"SNAPPY_STATE_DIR": str(folder / "state")})
    data = os.path.realpath(folder / "data")
    with site_up(folder) as up:
        shell.run("backup", data, "--to", "vault", "--init").expect(0)
        Path(data, "new").write_text("newer")
        shell.run("backup", data, "--to", "vault").expect(0)
        first, second = (each["id"] for each in shell.run("snapshots", "--from", "vault", "--json").expect(0).json())
        assert f"{data}/file\n" in shell.run("ls", "latest", "--from", "vault").expect(0).out
        assert shell.run("cat", "latest", f"{data}/file", "--from", "vault").expect(0).out == "content"
        part = shell.run("cat", "latest", f"{data}/file", "--offset=-4", "--length=3", "--from", "vault").expect(0)
        assert part.out == "ten"
        assert f"+    {data}/new\n" in shell.run("diff", first, second, "--from", "vault").expect(0).out
        assert json.loads(shell.run("find", "new", "--from", "vault", "--json").expect(0).out)[0]["hits"] == 1
        alone = shell.run("stats", "--mode", "alone", "--from", "vault", "--json").expect(0).json()
        assert [each["snapshot"] for each in alone] == [first, second]
        missing = shell.run("cat", "latest", f"{data}/flie", "--from", "vault").expect(5)
        assert f"the nearest that it has is {data}" in missing.err
        shell.run("dump", "latest", data, "--from", "vault", "--to", folder / "tar").expect(0)
        assert (folder / "tar").stat().st_size > 1024
        alice = up.shell(tmp_path_factory.mktemp("alice"), "alice")
        refused = alice.run("ls", "latest", "--from", "vault").expect(4)
        assert "alice may not browse 'vault' here" in refused.err
