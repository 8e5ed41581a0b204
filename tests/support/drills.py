"""Drills by a service without a bus around it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from snappy.config import DrillProgram
from snappy.errors import JobCancelled
from snappy.jobs.messages import JobRecord, Result
from snappy.jobs.states import State
from snappy.jobs.upkeep import DrillCommand
from snappy.repository.progress import Progress
from snappy.repository.store import Store
from snappy.sources import drills
from snappy.sources.site import Site
from snappy.sources.tasks import prepare
from snappy.sources.workshop import Workshop
from tests.support.engine import PASSWORD

NAMES: dict[str, Any] = {"source": "site", "target": "vault"}


class Hold:
    """A hold that ends when it is told to."""

    def __init__(self) -> None:
        self.attempt = 1
        self.job = JobRecord(id="job-1", kind="drill", submitter="alice", state=State.RUNNING)
        self.over = False

    def check(self) -> None:
        if self.over:
            raise JobCancelled


class Drills:
    """A service's."""

    def __init__(self, store: Store, work: Path) -> None:
        self.store, self.work, self.hold = store, work, Hold()
        self.progress = Progress()
        self.programs: dict[str, DrillProgram] = {}

    async def run(self, **more: Any) -> Result:
        hold: Any = self.hold
        shop = Workshop(
            hold=hold, store=self.store, password=PASSWORD, progress=self.progress, owner="snappy.site.r1", host="north"
        )
        site = Site("site", work=str(self.work), drills=self.programs)
        return await prepare("drill", DrillCommand(**NAMES, **more), site).work(shop)

    def left(self) -> list[str]:
        """What stands in its folder."""
        return [path.name for path in (self.work / drills.FOLDER).iterdir() if path.name != ".lock"]

    def runs(self, code: str, seconds: float = 60.0) -> None:
        self.programs["look"] = DrillProgram([sys.executable, "-c", code], seconds)
