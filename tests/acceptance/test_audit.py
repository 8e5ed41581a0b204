"""The audit log, read by the command line and taken elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.stack import Shell


def test_query_export_and_verify(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("some words")
    shell.with_password("backup", "data", "--to", "./vault", "--init").expect(0)
    head = shell.run("--json", "audit", "verify").expect(0).json()["head"]

    kinds = {entry["event"]["data"]["kind"] for entry in shell.run("--json", "audit", "query").expect(0).json()}
    assert "backup" in kinds
    assert shell.run("--json", "audit", "query", "--since", "0s").expect(0).json() == []
    assert shell.run("--json", "audit", "query", "--kind", "check").expect(0).json() == []

    shell.run("audit", "export", "--output", "taken").expect(0)
    taken = tmp_path / "taken"
    assert taken.stat().st_mode & 0o777 == 0o600
    found = shell.run("--json", "audit", "verify", "--export", "taken").expect(0).json()
    assert (found["head"], found["whole"]) == (head, True)
    printed = shell.run("audit", "export", "--kind", "backup", "--until", "2999-01-01T00:00:00Z").expect(0).out
    assert {json.loads(line)["i"] for line in printed.splitlines() if '"i":' in line} <= set(range(1, 1000))

    taken.write_text(taken.read_text().replace('"succeeded"', '"failed"', 1))
    assert "does not fit" in shell.run("audit", "verify", "--export", "taken").expect(8).err
    shell.run("audit", "verify", "--export", "nowhere").expect(2)
    shell.run("audit", "query", "--since", "yesterday").expect(2)
