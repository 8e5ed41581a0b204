"""A bucket of S3 as a target: ``s3://bucket/prefix``.

``storage_options`` are s3fs's, and two more: ``storage_class`` is that of packs, and ``object_lock`` (see
:class:`ObjectLock`) has the bucket keep each object of a repository, whoever deletes or replaces it.

A bucket with object lock has versions: what is deleted or replaced does not show any more, and is kept beside until its
retention is over, for the bucket's lifecycle rules to remove then.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from snappy.bus.failures import store_code
from snappy.decoding import converted
from snappy.errors import StorageError, UsageError
from snappy.targets.drafts import Draft, UploadDraft
from snappy.targets.s3_session import S3, session

TIMEOUTS: dict[str, Any] = {
    "connect_timeout": 5,
    "read_timeout": 30,
    "retries": {"max_attempts": 2, "mode": "standard"},
    "max_pool_connections": 32,
}
"""Without these a hung endpoint holds an operation for minutes."""
ATTEMPTS = 3

LARGEST_PUT = 5 << 30
"""With object lock nothing is uploaded in parts: radosgw 16.2 retains no object that was."""

DAY = 86_400.0
ABANDONED_SECONDS = DAY
"""An upload in parts that began before is nobody's any more."""
PACK = re.compile(r"/data/[0-9a-f]{2}/[0-9a-f]{64}\Z")
NAMED = re.compile(r"/(?:data/[0-9a-f]{2}|index|snapshots|keys|locks)/[0-9a-f]{64}\Z")
RETAINED = re.compile(r"/(?:config|(?:keys|snapshots|index)/[0-9a-f]{64}|data/[0-9a-f]{2}/[0-9a-f]{64})\Z")
"""The objects of a repository but for its locks, which are replaced every five minutes."""
FROZEN = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Storage classes whose objects cannot be read at once. A target cannot tell which packs hold trees, and most
jobs read these."""
NOT_LOCKED = frozenset({"ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration", "NotImplemented"})
GONE = frozenset({"404", "NoSuchKey", "405", "MethodNotAllowed"})
"""Of an object that was deleted meanwhile."""


class ObjectLock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From when it is written an object is retained for ``days``, and what still shows is renewed: at each moment it
    is retained for half of them at least. With ``compliance`` nobody can end that, with ``governance`` who has a right
    of its own."""

    mode: Literal["governance", "compliance"]
    days: Annotated[float, Meta(gt=0)]

    @property
    def seconds(self) -> float:
        return self.days * DAY


class BucketFileSystem(S3):
    """Other writers' objects must show at once, so nothing is remembered of a listing."""

    cachable = False

    def __init__(
        self,
        *,
        storage_class: str = "",
        object_lock: dict[str, Any] | None = None,
        clock: Callable[[], float] = time.time,
        **options: Any,
    ) -> None:
        if not options.keys() & {"session", "profile"}:
            options["session"] = session()
        options["config_kwargs"] = TIMEOUTS | options.get("config_kwargs", {})
        super().__init__(**{"use_listings_cache": False, **options})
        self.retries = ATTEMPTS
        self._class, self._clock = _readable(storage_class), clock
        self.object_lock = _object_lock(object_lock)
        self._has_lock = False

    def draft(self, path: str, *, exclusive: bool) -> Draft:
        return BucketDraft(self, path, exclusive)

    def how_kept(self, path: str) -> dict[str, Any]:
        """What a request that stores the object says of that. Raises StorageError where the bucket cannot do it."""
        how = {"StorageClass": self._class} if self._class and PACK.search(path) else {}
        if self.object_lock is None or not RETAINED.search(path):
            return how
        if not self._has_lock and not self.has_lock(path):
            hint = "make a bucket with object lock, or take object_lock from the target's storage_options"
            raise StorageError("the bucket of the target has no object lock", hint=hint)
        self._has_lock = True
        return {**how, **self._retention("ObjectLockMode", "ObjectLockRetainUntilDate", self.object_lock)}

    def _retention(self, mode: str, until: str, lock: ObjectLock) -> dict[str, Any]:
        end = datetime.fromtimestamp(self._clock() + lock.seconds, UTC)
        return {mode: lock.mode.upper(), until: end}

    def has_lock(self, path: str) -> bool:
        """Whether the bucket of that path was made with object lock."""
        try:
            found = self.call_s3("get_object_lock_configuration", Bucket=self.split_path(path)[0])
        except Exception as error:
            if store_code(error) in NOT_LOCKED:
                return False
            raise
        return bool(found["ObjectLockConfiguration"].get("ObjectLockEnabled") == "Enabled")

    def kept_until(self, path: str) -> float:
        """Until when, in Unix seconds, the bucket keeps the object at most if it is deleted now; 0: it does not."""
        return self._clock() + self.object_lock.seconds if self.object_lock and RETAINED.search(path) else 0.0

    # ---- chores

    @property
    def chore_seconds(self) -> float:
        return min(DAY, self.object_lock.seconds / 4) if self.object_lock else DAY

    def chores(self, root: str) -> list[Iterator[str]]:
        """What is to be done from time to time, each step when the next path is asked for."""
        return [self._abandoned(root), *([self._renewed(root, self.object_lock)] if self.object_lock else [])]

    def _abandoned(self, root: str) -> Iterator[str]:
        """Ends the uploads that a target left when it was killed: their parts do not show, but are kept."""
        bucket, prefix, _ = self.split_path(f"{root}/")
        found = self.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix)
        for upload in found.get("Uploads", []):
            if upload["Initiated"].timestamp() < self._clock() - ABANDONED_SECONDS:
                where = {"Bucket": bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
                self.call_s3("abort_multipart_upload", **where)
            yield f"{bucket}/{upload['Key']}"

    def _renewed(self, root: str, lock: ObjectLock) -> Iterator[str]:
        """Objects that show are retained as if they were written now, once a quarter of the time is over."""
        for path in filter(RETAINED.search, self.find(root)):
            bucket, key, _ = self.split_path(path)
            try:
                self._renew({"Bucket": bucket, "Key": key}, lock)
            except Exception as error:
                if store_code(error) not in GONE:
                    raise
            yield path

    def _renew(self, where: dict[str, str], lock: ObjectLock) -> None:
        until = self.call_s3("head_object", **where).get("ObjectLockRetainUntilDate")
        if until is None or until.timestamp() < self._clock() + lock.seconds * 3 / 4:
            retention = self._retention("Mode", "RetainUntilDate", lock)
            self.call_s3("put_object_retention", **where, Retention=retention)


class BucketDraft(UploadDraft):
    """An upload that says how its object is to be kept.

    Not every server heeds ``If-None-Match`` (Ceph's radosgw does not in a bucket with versions), so a name that is not
    that of its content is asked for before it is taken: a repository has one such, its configuration.
    """

    def __init__(self, fs: BucketFileSystem, path: str, exclusive: bool) -> None:
        super().__init__(fs, path, exclusive)
        self._bucket = fs
        if fs.object_lock:
            self.single_put = LARGEST_PUT

    def commit(self, within: float | None = None) -> None:
        if self._exclusive and not NAMED.search(self._path) and self._bucket.exists(self._path):
            raise FileExistsError(self._path)
        super().commit(within)

    def options(self, within: float | None) -> dict[str, Any]:
        return {**super().options(within), **self._bucket.how_kept(self._path)}


def _readable(storage_class: str) -> str:
    if storage_class.upper() in FROZEN:
        raise UsageError(
            f"objects of the storage class {storage_class} cannot be read at once",
            hint="GLACIER_IR and the classes for infrequent access can",
        )
    return storage_class


def _object_lock(given: dict[str, Any] | None) -> ObjectLock | None:
    try:
        return None if given is None else converted(given, ObjectLock)
    except msgspec.ValidationError as error:
        hint = 'for example object_lock = { mode = "compliance", days = 30 }'
        raise UsageError(f"object_lock of the target's storage_options: {error}", hint=hint) from error
