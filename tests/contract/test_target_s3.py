"""How an S3 bucket keeps a repository: storage class, object lock, and what holds against who has the credentials."""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest

from snappy.bus.failures import to_wire
from snappy.config import Allow, Config, Core, SourceService, TargetService
from snappy.errors import StorageError
from snappy.repository.format import BlobType
from snappy.repository.pack_writer import Options
from snappy.repository.repo import Repository
from snappy.repository.snapshots import Snapshot
from snappy.repository.store import FileType, Store
from snappy.targets import chores
from snappy.targets.drafts import SINGLE_PUT
from snappy.targets.opening import open_target
from snappy.targets.policy import PolicyFileSystem
from snappy.targets.probing import probe
from snappy.targets.s3 import DAY
from tests.support import radosgw, tools
from tests.support.engine import CHEAP, OWNER, PASSWORD
from tests.support.radosgw import Gateway
from tests.support.stack import in_process
from tests.support.target_grounds import CREATES_AT_ONCE
from tests.support.weed import Weed

pytestmark = pytest.mark.s3

MIB = 1 << 20
CLASS = "STANDARD_IA"
LOCK = {"mode": "compliance", "days": 2}
ALL = "rlwWd"
SECONDS = 60.0


@pytest.fixture(
    scope="module", params=["seaweedfs", pytest.param("radosgw", marks=[pytest.mark.radosgw, pytest.mark.long])]
)
def server(request: pytest.FixtureRequest) -> Iterator[Weed | Gateway]:
    if request.param == "seaweedfs":
        yield request.getfixturevalue("weed")
        return
    with radosgw.in_short_folder() as gateway:
        gateway.add_storage_class(CLASS)
        yield gateway


class Vault:
    """A bucket with object lock, as its target has it, and as who stole the target's credentials has it."""

    def __init__(self, server: Weed | Gateway, locked: bool = True) -> None:
        self.server, self.bucket = server, f"vault-{secrets.token_hex(4)}"
        self.thief = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False, **server.options)
        self.thief.call_s3("create_bucket", Bucket=self.bucket, ObjectLockEnabledForBucket=locked)

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/site1"

    def open(self, rights: str = ALL, **others: Any) -> PolicyFileSystem:
        return open_target(self.url, {**self.server.options, "object_lock": LOCK, **others}, rights)

    def call(self, method: str, name: str, **more: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.thief.call_s3(method, Bucket=self.bucket, Key=f"site1/{name}", **more)
        return found

    def versions(self) -> list[tuple[str, str]]:
        found = self.thief.call_s3("list_object_versions", Bucket=self.bucket).get("Versions", [])
        return [(each["Key"].removeprefix("site1/"), each["VersionId"]) for each in found]


@pytest.fixture
def vault(server: Weed | Gateway) -> Vault:
    return Vault(server)


def fill(files: PolicyFileSystem) -> dict[str, bytes]:
    """Make a repository with a snapshot; the value is all that is retained."""
    store = Store(files, "")
    options = Options(pack_size=MIB)
    with (
        Repository.init(store, PASSWORD, cost=CHEAP, options=options) as repository,
        repository.lock(owner=OWNER),
    ):
        for _ in range(8):
            repository.save_blob(BlobType.DATA, os.urandom(300_000))
        repository.flush()
    return {name: files.cat_file(name) for name in files.find("")}


def retained_until(vault: Vault, name: str) -> datetime | None:
    found: datetime | None = vault.call("head_object", name).get("ObjectLockRetainUntilDate")
    return found


def days_from_now(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def test_all_but_locks_is_retained_and_packs_have_the_storage_class(vault: Vault) -> None:
    files = vault.open(storage_class=CLASS)
    objects = fill(files)
    for name in objects:
        found = vault.call("head_object", name)
        assert found["ObjectLockMode"] == "COMPLIANCE"
        assert days_from_now(1.9) < found["ObjectLockRetainUntilDate"] < days_from_now(2)
        assert found.get("StorageClass", "STANDARD") == (CLASS if name.startswith("data/") else "STANDARD")
    locks = [(name, version) for name, version in vault.versions() if name.startswith("locks/")]
    assert locks, "what was deleted is kept as a version"
    for name, version in locks:
        vault.call("delete_object", name, VersionId=version)
    assert not any(name.startswith("locks/") for name, _ in vault.versions())


def test_a_storage_class_that_there_is_not_is_said(vault: Vault) -> None:
    with pytest.raises(OSError) as caught:
        vault.open(storage_class="NO_SUCH").pipe_file(f"data/ab/{hashlib.sha256(b'x').hexdigest()}", b"x")
    assert to_wire(caught.value, "x").code == "storage"


@pytest.mark.long
@pytest.mark.parametrize("lock", [LOCK, None], ids=["locked", "unlocked"])
def test_a_large_object_is_kept_as_small_ones_are(vault: Vault, lock: dict[str, Any] | None) -> None:
    files, content = vault.open(storage_class=CLASS, object_lock=lock), os.urandom(SINGLE_PUT + 11)
    name = f"data/ab/{hashlib.sha256(content).hexdigest()}"
    files.pipe_file(name, content)
    found = vault.call("head_object", name)
    assert found["StorageClass"] == CLASS
    if lock:
        assert found["ObjectLockMode"] == "COMPLIANCE"
    else:
        assert "-" in found["ETag"], "it was uploaded in parts"


def test_what_is_retained_is_renewed_before_it_runs_out(vault: Vault) -> None:
    vault.open(object_lock=None).pipe_file("config", b"from before")
    files = vault.open()
    chores.round_of(files.fs, files.root)
    first = retained_until(vault, "config")
    assert first
    assert days_from_now(1.9) < first < days_from_now(2)
    for later, days in ((0.4, 2.0), (0.6, 2.6)):
        ahead = vault.open(clock=lambda later=later: time.time() + later * DAY)
        chores.round_of(ahead.fs, ahead.root)
        renewed = retained_until(vault, "config")
        assert renewed
        assert abs(renewed - days_from_now(days)) < timedelta(minutes=1)


def test_an_upload_that_a_killed_target_left_is_ended_a_day_later(vault: Vault) -> None:
    upload = vault.call("create_multipart_upload", "data/ab/x")["UploadId"]
    vault.call("upload_part", "data/ab/x", UploadId=upload, PartNumber=1, Body=b"part")

    def left() -> int:
        return len(vault.thief.call_s3("list_multipart_uploads", Bucket=vault.bucket).get("Uploads", []))

    for later, count in ((0.0, 1), (DAY + 60, 0)):
        files = vault.open(object_lock=None, clock=lambda later=later: time.time() + later)
        chores.round_of(files.fs, files.root)
        assert left() == count


def test_a_bucket_without_object_lock_is_said(server: Weed | Gateway) -> None:
    files = Vault(server, locked=False).open()
    with pytest.raises(StorageError, match="no object lock") as caught:
        files.pipe_file("config", b"x")
    assert not caught.value.retryable


@pytest.mark.long
def test_a_probe_leaves_nothing_that_is_retained(vault: Vault) -> None:
    files = vault.open()
    found = probe(files, MIB)
    assert found.will_do, found
    assert {each.name for each in found.findings if not each.can} <= {CREATES_AT_ONCE}
    assert files.find("") == []
    for name, version in vault.versions():
        vault.call("delete_object", name, VersionId=version)


def test_the_configuration_is_created_once(vault: Vault) -> None:
    store = Store(vault.open("rlw"), "")
    store.save(FileType.CONFIG, "config", b"first", create=True)
    with pytest.raises(StorageError):
        store.save(FileType.CONFIG, "config", b"second", create=True)
    assert store.load(FileType.CONFIG, "config") == b"first"


@pytest.mark.webdav
@pytest.mark.restic
def test_who_stole_the_credentials_can_destroy_nothing(vault: Vault, tmp_path: Path) -> None:
    objects = fill(vault.open())
    time.sleep(1.1)  # versions are told apart by the second
    before = datetime.now(UTC)
    time.sleep(1.1)  # so that what comes now is later than that moment
    shorter = {"Mode": "COMPLIANCE", "RetainUntilDate": days_from_now(0.1)}
    for name, version in vault.versions():
        if name in objects:
            with pytest.raises(PermissionError):
                vault.call("delete_object", name, VersionId=version)
            with pytest.raises(PermissionError):
                vault.call("put_object_retention", name, VersionId=version, Retention=shorter)
    for name in objects:
        vault.call("put_object", name, Body=b"pay me")
        vault.call("delete_object", name)
    assert vault.open().find("") == []
    copied = as_of(vault, before, tmp_path)
    assert {name: (copied / name).read_bytes() for name in objects} == objects
    program = tools.restic()
    assert program
    environment = {**os.environ, "RESTIC_PASSWORD": PASSWORD, "RESTIC_CACHE_DIR": str(tmp_path / "cache")}
    command = [program, "-r", str(copied), "check", "--read-data"]
    subprocess.run(command, env=environment, check=True, capture_output=True)


def as_of(vault: Vault, moment: datetime, folder: Path) -> Path:
    """What the bucket held then, as rclone copies it."""
    options = {
        "TYPE": "s3",
        "PROVIDER": "Other",
        "ENDPOINT": vault.server.endpoint,
        "ACCESS_KEY_ID": vault.server.access_key,
        "SECRET_ACCESS_KEY": vault.server.secret_key,
        "VERSION_AT": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    environment = {**os.environ, "RCLONE_CONFIG": str(folder / "rclone.conf")}
    environment |= {f"RCLONE_CONFIG_VAULT_{name}": value for name, value in options.items()}
    command = [str(tools.rclone()), "copy", f"vault:{vault.bucket}/site1", str(folder / "copied")]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return folder / "copied"


async def test_a_forget_with_prune_says_that_the_storage_keeps_what_went(vault: Vault, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    stray = f"data/ab/{'ab' * 32}"
    version = vault.call("put_object", stray, Body=b"from before there was a lock")["VersionId"]
    everything = Allow(kinds=["*"], plugins=["*"], targets=["vault"], read=["/"])
    target = TargetService(url=vault.url, rights="rlwd", storage_options={**vault.server.options, "object_lock": LOCK})
    settings = Config(
        state_dir=str(tmp_path / "state"),
        core=Core(hold_seconds=5.0, may_delete=["alice"]),
        source={"site": SourceService(allow={"alice": everything}, workers=1)},
        target={"vault": target},
    )
    async with (
        in_process(settings, ["alice"], passwords=lambda _key: PASSWORD) as inside,
        inside.client("alice") as client,
    ):

        async def done(kind: str, **more: object) -> Any:
            submitted = await client.submit(kind, {"source": "site", "target": "vault", **more})
            record = await client.wait(submitted.id)
            assert record.result, record.error
            return record.result

        for _ in range(2):
            (tmp_path / "data" / "file").write_bytes(os.urandom(100_000))
            made = await done("backup", init=True, options={"paths": [str(tmp_path / "data")]})
        assert made.kept_until == 0
        result = await done("forget", keep_last=1, prune=True)
        assert (result.removed, result.prune.packs_deleted > 0) == (1, True)
        assert 0 <= time.time() + 2 * DAY - result.kept_until < SECONDS
        assert not (await done("check", read_data=True)).findings
    assert vault.call("head_object", stray, VersionId=version)["ObjectLockMode"] == "COMPLIANCE", (
        "a chore of the service"
    )
    with Repository.open(Store(vault.open(), ""), PASSWORD) as repository:
        (left,) = repository.snapshots()
        assert isinstance(left, Snapshot)
