"""A lock that was lost while the work waited for its hold: nothing that needs the lock is written any more."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime

import pytest

from snappy.errors import RepositoryLocked
from snappy.repository.format import BlobType
from snappy.repository.locks import Lock
from snappy.repository.repo import Repository
from snappy.repository.snapshots import Snapshot
from snappy.repository.store import FileType
from snappy.sources.held_store import HeldStore
from tests.support.engine import CHEAP, OWNER, PASSWORD, PrivateMemory


class Waiting:
    """A hold that was silent for hours when ``lose`` has a lock: when its check returns, that lock is lost."""

    def __init__(self) -> None:
        self.lose: Lock | None = None

    def grant(self) -> str:
        return ""

    def lapse(self, grant: str) -> None:
        raise AssertionError(grant)

    def letting_go(self, lock: str) -> AbstractContextManager[set[str]]:
        return nullcontext({lock})

    def check(self) -> None:
        if self.lose:
            self.lose._refreshed_at = datetime(2000, 1, 1, tzinfo=UTC)


def test_a_lock_lost_while_the_hold_was_waited_for_is_noticed() -> None:
    hold = Waiting()
    repository = Repository.init(HeldStore(PrivateMemory(), "/repo", hold), PASSWORD, cost=CHEAP)
    with repository, repository.lock(owner=OWNER, settle=0) as lock:
        repository.save_blob(BlobType.DATA, b"x")
        hold.lose = lock
        with pytest.raises(RepositoryLocked):
            repository.save_snapshot(Snapshot(time=datetime.now(UTC), tree="0" * 64, paths=[]))
        with pytest.raises(RepositoryLocked):
            repository.flush()
        hold.lose = None
        assert repository.store.list(FileType.INDEX) == repository.store.list(FileType.SNAPSHOT) == []
