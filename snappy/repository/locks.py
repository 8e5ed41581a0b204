"""Locks: small sealed files that say who works on the repository, as restic's, so that both can share one.

Many may hold a shared lock; an exclusive one stands alone. Sources: restic's ``doc/design.rst``, "Locks", and its
``internal/repository/lock_file.go``. A lock of Snappy says in an extra field which attempt at which job holds it.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta

import msgspec

from snappy import log
from snappy.errors import AccessDenied, NotFound, RepositoryLocked, SnappyError
from snappy.repository.documents import Documents
from snappy.repository.format import decode_json, encode_json
from snappy.repository.store import FileType, Store

_LOG = log.get(__name__)

STALE_AFTER = timedelta(minutes=30)
"""A lock that old was left by somebody who died: its holder must have stopped writing long before."""

LOST_AFTER = timedelta(minutes=20)
"""A holder whose last refresh is that old writes no index and no snapshot any more."""

REFRESH_EVERY = timedelta(minutes=5)
RETRY_EVERY = timedelta(seconds=30)
SETTLE = 0.2
"""Seconds between writing a lock and looking again: time for a lock written at the same moment to appear."""

ASKED_AT_ONCE = 16

Now = Callable[[], datetime]


class LockJob(msgspec.Struct, frozen=True):
    """The attempt at a job that holds a lock."""

    job: str
    attempt: int = 1


class LockOwner(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a lock. A service's hostname is ``snappy.<service>.<replica>``: no machine has such a name, so
    restic never takes the process id for one of its own machine's."""

    hostname: str
    username: str = ""
    pid: int = 0
    uid: int = 0
    gid: int = 0
    job: LockJob | None = None


class LockFile(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a lock file holds."""

    time: datetime
    exclusive: bool
    hostname: str
    username: str
    pid: int
    uid: int = 0
    gid: int = 0
    snappy: LockJob | None = None


Named = tuple[str, LockFile]
Confirm = Callable[[list[Named]], AbstractContextManager[Collection[str]]]
"""Asked about locks that jobs wrote, at most ``ASKED_AT_ONCE``: the names of those that are known to be held by
nobody, which may be removed while the context lasts."""


class Lock:
    """A lock that is held. ``settled`` belongs before the first thing that is written under it, ``check`` before
    everything that others must not see from a lost holder. The locks of the names in ``dead`` are in nobody's way."""

    def __init__(
        self,
        store: Store,
        documents: Documents,
        owner: LockOwner,
        exclusive: bool,
        settle: float,
        now: Now,
        dead: Collection[str],
    ) -> None:
        self._settle, self._dead = settle, dead
        self._settling = threading.Lock()
        self._is_settled = False
        self._refusal: RepositoryLocked | None = None
        self._store = store
        self._documents = documents
        self._owner = owner
        self._exclusive = exclusive
        self._now = now
        self._names: list[str] = []  # the newest last; older ones are those that could not be removed yet
        self._refreshing = threading.Lock()
        self._refreshed_at = now()

    @property
    def name(self) -> str:
        """The lock file's name; it changes with each refresh."""
        return self._names[-1]

    def acquire(self) -> None:
        """Write the lock, unless another's is in the way. Raises :class:`RepositoryLocked`."""
        self.look()
        self.refresh()
        self._written = time.monotonic()

    def look(self) -> None:
        """Raise :class:`RepositoryLocked`, naming host and process, when another's lock is in the way."""
        _refuse_conflict(self._store, self._documents, self._exclusive, self._now(), {*self._dead, *self._names})

    def settled(self) -> None:
        """Look again when a lock that was written at the same moment must be there. Any thread may call, any number of
        times; once is waited."""
        if self._is_settled:
            return
        with self._settling:
            if self._refusal:
                raise self._refusal
            if not self._is_settled:
                self._settle_now()

    def _settle_now(self) -> None:
        time.sleep(max(0.0, self._written + self._settle - time.monotonic()))
        try:
            self.look()
        except RepositoryLocked as error:
            self._refusal = error
            raise
        self._is_settled = True

    def refresh(self) -> None:
        """Write the lock anew and remove the old file. Raises :class:`snappy.errors.StorageError`, and
        :class:`RepositoryLocked` when the lock is lost: what others ignored once cannot be had back."""
        with self._refreshing:
            if self._names:
                self.check()
            written_at = self._now()
            self._names.append(self._write(written_at))
            self._refreshed_at = written_at
            self._remove(self._names[:-1])

    def check(self) -> None:
        """Raise :class:`RepositoryLocked` when the lock was not refreshed for so long that others may ignore it."""
        age = self._now() - self._refreshed_at
        if age >= LOST_AFTER:
            raise RepositoryLocked(
                f"our lock on the repository is lost: it was not refreshed for {age // timedelta(minutes=1)} minutes",
                hint="the storage did not answer for so long that others may have changed the repository",
            )

    def check_settled(self) -> None:
        """Both: for what may be the first thing that is written, too."""
        self.settled()
        self.check()

    def release(self) -> None:
        """Remove the lock file. Raises :class:`snappy.errors.StorageError`."""
        with self._refreshing:
            self._remove(list(self._names))

    def _write(self, at: datetime) -> str:
        owner = self._owner
        file = LockFile(
            time=at,
            exclusive=self._exclusive,
            hostname=owner.hostname,
            username=owner.username,
            pid=owner.pid,
            uid=owner.uid,
            gid=owner.gid,
            snappy=owner.job,
        )
        return self._documents.save(FileType.LOCK, encode_json(file))

    def _remove(self, names: list[str]) -> None:
        for name in names:
            try:
                self._store.remove(FileType.LOCK, name)
            except NotFound:
                pass  # somebody removed it for us
            self._names.remove(name)


@contextmanager
def hold(
    store: Store,
    documents: Documents,
    owner: LockOwner,
    *,
    exclusive: bool = False,
    settle: float = SETTLE,
    settle_later: bool = False,
    confirm: Confirm | None = None,
    now: Now = lambda: datetime.now(UTC),
) -> Iterator[Lock]:
    """Hold a lock and keep it fresh from a thread of its own; leaving the context removes it. The locks of jobs that
    ``confirm`` knows to be dead are removed first; without it, those of earlier attempts at the owner's job.

    With ``settle_later`` the caller may read meanwhile, and calls :meth:`Lock.settled` before it writes. What it reads
    is not being deleted: whoever was deleting is seen when our lock is written, and who comes then sees that.

    Raises :class:`RepositoryLocked`, naming host and process, when another's lock is in the way.
    """
    dead = _remove_dead(store, documents, confirm or _earlier_attempts(owner))
    lock = Lock(store, documents, owner, exclusive, settle, now, dead)
    lock.acquire()
    try:
        (lock.look if settle_later else lock.settled)()
    except BaseException:
        _let_go(lock)
        raise
    stop = threading.Event()
    keeper = threading.Thread(target=_keep_fresh, args=(lock, stop), name="repository-lock", daemon=True)
    keeper.start()
    try:
        yield lock
    finally:
        stop.set()
        keeper.join()
        _let_go(lock)


def read_locks(store: Store, documents: Documents) -> list[Named]:
    """All locks, stale ones too, by name. Raises :class:`Damaged` for one that cannot be read: who cannot tell
    whether he may work must not."""
    found: list[Named] = []
    for name, size in store.list(FileType.LOCK):
        if size == 0:
            continue  # an upload that broke off on a store that shows such
        try:
            data = documents.load(FileType.LOCK, name, size)
        except NotFound:
            continue  # released since it was listed
        found.append((name, decode_json(data, LockFile, f"lock {name[:8]}")))
    return found


def is_stale(lock: LockFile, now: datetime) -> bool:
    """Whether its holder is gone: 30 minutes without a refresh, or a process of this machine that ended."""
    if now - lock.time.astimezone(UTC) > STALE_AFTER:
        return True
    return lock.hostname == socket.gethostname() and not _is_alive(lock.pid)


def _earlier_attempts(owner: LockOwner) -> Confirm:
    """Attempt n+1 exists only because n is over and may write no more: its lock keeps others out for nothing."""

    def is_earlier(lock: LockFile) -> bool:
        ours, theirs = owner.job, lock.snappy
        return bool(ours and theirs and theirs.job == ours.job and theirs.attempt < ours.attempt)

    @contextmanager
    def confirm(left: list[Named]) -> Iterator[set[str]]:
        yield {name for name, lock in left if is_earlier(lock)}

    return confirm


def _remove_dead(store: Store, documents: Documents, confirm: Confirm) -> set[str]:
    """The names of the locks that nobody holds; who may not remove them need not honour them either."""
    left = [(name, lock) for name, lock in read_locks(store, documents) if lock.snappy]
    found: set[str] = set()
    for start in range(0, len(left), ASKED_AT_ONCE):
        with confirm(left[start : start + ASKED_AT_ONCE]) as dead:
            for name in dead:
                _remove_one(store, name)
        found.update(dead)
    return found


def _remove_one(store: Store, name: str) -> None:
    try:
        store.remove(FileType.LOCK, name)
        _LOG.info("removed a lock that nobody holds", lock=name)
    except NotFound:
        pass  # another who met it was faster
    except AccessDenied as error:
        _LOG.info("a lock that nobody holds stays", lock=name, reason=error.message)


def _refuse_conflict(
    store: Store, documents: Documents, exclusive: bool, now: datetime, ignored: Collection[str]
) -> None:
    for name, other in read_locks(store, documents):
        if name in ignored or is_stale(other, now) or not (exclusive or other.exclusive):
            continue
        kind = "exclusively " if other.exclusive else ""
        job = f" for job {other.snappy.job}, attempt {other.snappy.attempt}" if other.snappy else ""
        raise RepositoryLocked(
            f"the repository is locked {kind}by process {other.pid} on {other.hostname}{job}, since {other.time}"
        )


def _keep_fresh(lock: Lock, stop: threading.Event) -> None:
    wait = REFRESH_EVERY
    while not stop.wait(wait.total_seconds()):
        try:
            lock.refresh()
            wait = REFRESH_EVERY
        except RepositoryLocked as error:
            _LOG.error("the lock is lost", reason=error.message)
            return
        except SnappyError as error:
            _LOG.warning("the lock could not be refreshed", reason=error.message)
            wait = RETRY_EVERY


def _let_go(lock: Lock) -> None:
    try:
        lock.release()
    except SnappyError as error:
        _LOG.warning("the lock could not be removed, it will become stale", lock=lock.name, reason=error.message)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
