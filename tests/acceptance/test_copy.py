"""``snappy copy`` as a user runs it: from one place to another, each with a password of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import tools
from tests.support.places import Place, in_bucket
from tests.support.stack import Shell, secret
from tests.support.weed import weed_server

SECONDS = 60.0


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_bytes(b"what is in it")
    secret(tmp_path / "other", "another password")
    made.with_password("backup", "./data", "--to", "./repo", "--init").expect(0)
    made.run("init", "--to", "./second", "--password-file", "other").expect(0)
    return made


def test_what_was_copied_is_restored(shell: Shell, tmp_path: Path) -> None:
    words = ("copy", "--from", "./repo", "--from-password-file", shell.password_file, "--to", "./second")
    first = shell.run(*words, "--password-file", "other").expect(0)
    assert first.out.startswith("copied 1 snapshots, 0 were there")
    again = shell.run(*words, "--password-file", "other", "--json").expect(0).json()
    assert (again["result"]["snapshots"], again["result"].get("copied", 0)) == (1, 0)
    shell.run("restore", "latest", "--from", "./second", "--to", "./back", "--password-file", "other").expect(0)
    assert [path.read_bytes() for path in (tmp_path / "back").rglob("file")] == [b"what is in it"]
    shell.run(*words, "--password-file", shell.password_file).expect(12)
    shell.run("copy", "--from", "vault", "--to", "./second", "--password-file", "other").expect(2)


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "weed").mkdir()
    with weed_server(tmp_path / "weed") as weed:
        yield in_bucket(weed)


@pytest.mark.s3
@pytest.mark.restic_newest
@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_copy_to_s3_that_is_killed_and_begun_again(shell: Shell, bucket: Place, tmp_path: Path) -> None:
    endpoint = str(bucket.target["endpoint_url"])
    shell.environ.update(bucket.environment, AWS_ENDPOINT_URL=endpoint)
    (tmp_path / "data" / "noise").write_bytes(os.urandom(60 << 20))
    shell.with_password("backup", "./data", "--to", "./repo").expect(0)
    url = str(bucket.target["url"])
    shell.run("init", "--to", url, "--password-file", "other").expect(0)
    words = ("copy", "--from", "./repo", "--from-password-file", shell.password_file, "--to", url)
    killed = shell.start(*words, "--password-file", "other", "--bandwidth", "8M")
    deadline = time.monotonic() + SECONDS
    while not bucket.objects("data/") and time.monotonic() < deadline:
        time.sleep(0.1)
    killed.kill()
    killed.communicate()
    assert bucket.objects("data/")
    shell.run(*words, "--password-file", "other").expect(0)
    restic = bucket.restic(tools.newest_restic() or "", "another password", tmp_path / "cache")
    restic.run("check", "--read-data", "--no-lock")  # the lock of what was killed is there until it is in the way
    restic.run("restore", "latest", "--target", tmp_path / "restored")
    [restored] = (tmp_path / "restored").rglob("noise")
    assert restored.read_bytes() == (tmp_path / "data" / "noise").read_bytes()
