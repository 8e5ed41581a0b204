"""The plug-in ``command`` in the contract: `cat` reads a file, and a shell writes one and renames it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.replaced_file import ReplacedFile
from tests.support.source_contract import Ground, Refused, SourceContract

WRITE_AND_RENAME = 'cat > "$0.part" && mv "$0.part" "$0"'


class CommandGround(ReplacedFile):
    plugin = "command"
    changes_share = 0.2
    works_in_folder = False

    def settings(self) -> dict[str, dict[str, Any]]:
        said = "echo the disk is on fire >&2; exit 3"
        return {
            "default": {"backup": ["cat", str(self.here)], "restore": self._writer(self.here)},
            "other": {"restore": self._writer(self.there)},
            "failing": {"backup": ["sh", "-c", f"cat {self.here}; {said}"], "restore": ["sh", "-c", said]},
            "absent": {"backup": ["/no/such/program"], "restore": ["/no/such/program"]},
            "slow": {
                "backup": ["sleep", "60"],
                "restore": ["sh", "-c", "cat > /dev/null; sleep 60"],
                "seconds": 0.3,
            },
        }

    def options(self) -> dict[str, Any]:
        return {"name": "default"}

    def restore_options(self, other: bool) -> dict[str, Any]:
        return {"name": "other" if other else "default"}

    def restore_into(self, folder: Path) -> dict[str, Any] | None:
        return None

    def leftovers(self) -> list[str]:
        """Programs that still run."""
        found = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
        return [line.decode(errors="replace") for line in found if os.fsencode(self.folder) in line]

    def refused(self) -> Sequence[Refused]:
        return [
            Refused("a name that there is not", "bad-options", {"name": "no"}),
            Refused("a name without a backup", "bad-options", {"name": "other"}),
            Refused("a job that brings a program", "bad-options", {"backup": ["true"]}),
            Refused("a program that fails at its end", "program-failed", {"name": "failing"}),
            Refused("a program that there is not", "program-missing", {"name": "absent"}),
            Refused("a program that takes too long", "program-failed", {"name": "slow"}),
            Refused("a restore that fails", "program-failed", {"name": "failing"}, "restore"),
            Refused("a restore by what there is not", "program-missing", {"name": "absent"}, "restore"),
            Refused("a restore that takes too long", "program-failed", {"name": "slow"}, "restore"),
        ]

    def _writer(self, path: Path) -> list[str]:
        return ["sh", "-c", WRITE_AND_RENAME, str(path)]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return CommandGround(tmp_path_factory.mktemp("command"))


class TestCommand(SourceContract):
    """All that is asked of it."""
