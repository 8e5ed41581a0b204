"""Backups and restores by a plug-in, without a bus: a source service's work in this process, on a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from snappy.errors import JobCancelled
from snappy.jobs.kinds import BackupCommand, RestoreCommand
from snappy.jobs.messages import JobRecord, Result
from snappy.jobs.states import State
from snappy.repository.progress import Progress
from snappy.repository.store import Store
from snappy.sources.site import Site
from snappy.sources.tasks import prepare
from snappy.sources.workshop import Workshop

NAMES: dict[str, Any] = {"source": "site", "target": "vault"}


class Hold:
    """One that ends when :meth:`end` is called, and may do so when so many bytes have come."""

    attempt = 1

    def __init__(self, progress: Progress, end_after: int | None) -> None:
        self.job = JobRecord(id="job-1", kind="backup", submitter="alice", state=State.RUNNING)
        self.ended: JobCancelled | None = None
        self._progress, self._end_after = progress, end_after
        self._watchers: list[Callable[[bytes], None]] = []

    def watch(self, listen: Callable[[bytes], None]) -> Callable[[], None]:
        self._watchers.append(listen)
        return lambda: self._watchers.remove(listen)

    def check(self) -> None:
        if self._end_after is not None and self._progress.bytes_done >= self._end_after and not self.ended:
            self.end()
        if self.ended:
            raise self.ended

    def end(self) -> None:
        self.ended = JobCancelled()
        for listen in list(self._watchers):
            listen(b"")


class Jobs:
    """Of one plug-in, with its settings by name; the repository and what plug-ins work in are in ``folder``."""

    def __init__(self, folder: Path, plugin: str, settings: dict[str, dict[str, Any]]) -> None:
        self._plugin = plugin
        self.work = folder / "work"
        self.repository = folder / "repository"
        self.site = Site("site", {plugin: settings}, str(self.work))

    async def backup(self, *, end_after: int | None = None, **options: Any) -> Result:
        command = BackupCommand(**NAMES, plugin=self._plugin, options=options, init=True)
        return await self.done(command, end_after=end_after)

    async def done(self, command: BackupCommand, *, end_after: int | None = None) -> Result:
        return await prepare("backup", command, self.site).work(self._shop(end_after))

    async def restore(self, *, end_after: int | None = None, snapshot: str = "latest", **options: Any) -> Result:
        command = RestoreCommand(**NAMES, plugin=self._plugin, options=options, snapshot=snapshot)
        return await prepare("restore", command, self.site).work(self._shop(end_after))

    def _shop(self, end_after: int | None) -> Workshop:
        progress = Progress()
        hold: Any = Hold(progress, end_after)
        store = Store(LocalFileSystem(), str(self.repository))
        return Workshop(
            hold=hold, store=store, password="right", progress=progress, owner="snappy.site.r1", host="north"
        )

    def leftovers(self) -> list[str]:
        return [str(path) for path in self.work.glob("*/*") if path.is_dir()]
