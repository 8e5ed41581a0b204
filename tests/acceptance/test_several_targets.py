"""``snappy backup`` to several targets as a user runs it, by hand and on a schedule."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.stack import Shell, secret, snappy_up

CONFIGURATION = """
[source.site]
keys.default = {{ file = "{folder}/password" }}
keys.other = {{ file = "{folder}/other" }}
[source.site.allow.alice]
kinds = ["backup"]
plugins = ["files"]
targets = ["*"]
read = ["{folder}/data"]
[target.vault]
url = "{folder}/vault"
[target.second]
url = "{folder}/second"
"""


def test_two_targets_by_hand_and_on_a_schedule(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_bytes(b"what is in it")
    secret(tmp_path / "password", "one")
    secret(tmp_path / "other", "another")
    with snappy_up(tmp_path, CONFIGURATION.format(folder=tmp_path), ["site", "vault", "second"]) as up:
        shell = up.shell(tmp_path_factory.mktemp("alice"), "alice")
        words = ["backup", tmp_path / "data", "--to", "vault", "--to"]
        done = shell.run(*words, "second:other", "--init").expect(0)
        last = done.out.splitlines()[-1]
        for name in ("vault", "second"):
            [snapshot] = (tmp_path / name / "snapshots").iterdir()
            assert f"{name} ({snapshot.name[:8]})" in last
        enough = shell.run(*words, "second:third", "--quorum", "1").expect(0)
        assert enough.out.splitlines()[-1].startswith("stored at vault (")
        told = shell.run(*words, "second:third").expect(6).err
        assert "vault has the backup, and 2 of 2 were asked for; second: site has no key 'third'" in told
        assert " vault,second " in shell.run("jobs", "list", "--kind", "backup").expect(0).out
        added = shell.run("schedule", "add", "nightly", "--every", "1d", "--json", "--", *words, "second:other").expect(
            0
        )
        assert added.json()["command"]["targets"] == [{"target": "second", "key": "other"}]


def test_several_places_need_a_server(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    refused = shell.with_password("backup", ".", "--to", "./one", "--to", "./two", "--init").expect(2)
    assert "./two is a place, and several places need a server" in refused.err
    assert not (tmp_path / "one").exists()
