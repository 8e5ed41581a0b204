"""restic judges what crossed the bus: separate services fill, read and share repositories with it, local and on S3."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from snappy.error_codes import BY_CODE
from snappy.errors import Damaged, RepositoryLocked
from snappy.repository.repo import Repository
from snappy.repository.store import Store
from tests.support import raw_nats
from tests.support.compare import compare
from tests.support.listing import differences, in_snapshot, on_disk
from tests.support.places import Place, in_bucket, in_folder
from tests.support.restic import Restic
from tests.support.site import Site, site
from tests.support.trees import change_tree, make_tree
from tests.support.weed import Weed, weed_server

pytestmark = pytest.mark.timeout(240)

HOST = "here"
SECONDS = 60.0
SAID_BY_A_CHECK_WITHOUT_COMPLAINT = re.compile(
    r"using temporary cache in .*|created new cache in .*"
    r"|create exclusive lock for repository|load indexes"
    r"|check all packs|check snapshots, trees and blobs|read all data"
    r"|\[\d+:\d\d\]( +[\d.]+%)? +\d+( / \d+)? (index files|packs|snapshots)( loaded)?"
    r"|no errors were found"
)


class Ground:
    """A site, one of its target's places and a tree to back up; and restic on the same place."""

    def __init__(self, running: Site, place: Place, restic: Restic, tree: Path) -> None:
        self.site, self.place, self.restic, self.tree = running, place, restic, tree

    def found(self) -> None:
        """A repository whose key costs nothing, to Snappy and to restic: by default each opens it in half a second."""
        Repository.init(Store(self.place.files(), self.place.root), self.site.repository_password).close()

    def run(self, kind: str, **command: Any) -> dict[str, Any]:
        """The result of a job that must succeed without a warning."""
        return succeeded(asyncio.run(self.site.run(kind, **command)))

    def back_up(self, **command: Any) -> dict[str, Any]:
        return self.run("backup", **self.backup(**command))

    def backup(self, **command: Any) -> dict[str, Any]:
        return {"options": {"paths": [str(self.tree)]}, "host": HOST, **command}

    def back_up_by_restic(self) -> dict[str, Any]:
        """What restic said of it at the end."""
        summary = self.restic.json("backup", "--host", HOST, self.tree)[-1]
        assert summary["message_type"] == "summary"
        return summary

    def check(self) -> None:
        """restic reads every byte and says nothing that it does not say of a sound repository."""
        done = self.restic.attempt("check", "--read-data")
        lines = done.stdout.decode().split("\n")
        said = [line for line in lines if line and not SAID_BY_A_CHECK_WITHOUT_COMPLAINT.fullmatch(line)]
        assert (done.returncode, said, done.stderr) == (0, [], b"")
        assert "no errors were found" in lines

    def assert_restic_restores(self) -> None:
        back = self.site.folder / "back" / f"{self.tree.parent.name} by restic"
        self.restic.run("restore", "latest", "--target", back)
        assert_same(self.tree, back)

    def assert_snappy_restores(self) -> None:
        back = self.site.folder / "back" / self.tree.parent.name
        self.run("restore", options={"to": str(back), "allow_devices": True})
        assert_same(self.tree, back)

    def assert_listed(self, snapshot: str) -> None:
        """restic lists exactly what lies in the tree now."""
        assert differences(in_snapshot(self.restic, snapshot, self.tree), on_disk(self.tree)) == []


def succeeded(event: dict[str, Any]) -> dict[str, Any]:
    assert event["type"].endswith(".succeeded"), event
    result: dict[str, Any] = event["data"]["result"]
    assert result["warning_count"] == 0, result["warnings"]
    return result


def assert_same(tree: Path, back: Path) -> None:
    found = compare(tree, Path(f"{back}{tree}"))
    assert found.same, found.differences
    assert found.files > 1000


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


# ---- the ground ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    with weed_server(tmp_path_factory.mktemp("weed")) as running:
        yield running


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with site(folder, {"url": str(folder / "unused")}, core={"max_attempts": 1}) as made:
        yield made


@pytest.fixture
def ground(place: Place, running: Site, restic_program: str, tmp_path: Path) -> Ground:
    asyncio.run(move_target(running, place))
    restic = place.restic(restic_program, running.repository_password, tmp_path / "cache")
    version = restic.run("version").split()[1].decode()
    tree = running.folder / "data" / tmp_path.name / "tree"
    make_tree(tree, tuple(map(int, version.split("."))))
    return Ground(running, place, restic, tree)


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return in_folder(tmp_path) if request.param == "folder" else in_bucket(request.getfixturevalue("weed"))


async def move_target(running: Site, place: Place) -> None:
    """The target service starts anew, with another place."""
    running.processes["vault"].terminate()
    running.processes["vault"].wait(SECONDS)
    shutil.rmtree(running.folder / "vault")
    running.target = place.target
    running.start("vault")
    for proxy in running.proxies.values():
        proxy.forget()
    async with raw_nats.connect(running.server.url, "site1", running.password("site1")) as client:
        while not await answers(client):
            assert running.processes["vault"].poll() is None, running.log("vault")[-4000:]
            await asyncio.sleep(0.05)


async def answers(client: raw_nats.RawClient) -> bool:
    try:
        await client.request("snappy.fs.vault.info.site1", b"{}")
    except raw_nats.ServerError:
        return False
    return True


# ---- what crossed is what restic knows -------------------------------------------------------------------------------


def test_restic_reads_what_snappy_wrote(ground: Ground) -> None:
    first = ground.back_up(init=True)
    before = on_disk(ground.tree)
    change_tree(ground.tree, 1)
    second = ground.back_up()
    assert second["files_unmodified"] > 1000
    assert second["files_changed"] >= 20
    assert second["files_new"] >= 20
    ground.check()
    assert differences(in_snapshot(ground.restic, first["snapshot"], ground.tree), before) == []
    ground.assert_listed(second["snapshot"])
    ground.assert_restic_restores()


def test_snappy_reads_what_restic_wrote(ground: Ground) -> None:
    ground.restic.run("init")
    ground.back_up_by_restic()
    ground.assert_snappy_restores()


def test_both_take_turns_in_one_repository(ground: Ground) -> None:
    ground.found()
    ours = ground.back_up()
    change_tree(ground.tree, 1)
    theirs = ground.back_up_by_restic()
    assert theirs["files_unmodified"] > 1000
    change_tree(ground.tree, 2)
    again = ground.back_up()
    assert again["files_unmodified"] > 1000
    parents = {one["id"]: one.get("parent", "") for one in ground.restic.json("snapshots")}
    newest = again["snapshot"]
    assert parents[newest] in parents
    assert parents[parents[newest]] == ours["snapshot"]
    ground.check()
    ground.assert_listed(newest)
    ground.assert_restic_restores()
    ground.assert_snappy_restores()


@pytest.mark.parametrize("place", ["folder"], indirect=True)
def test_both_find_a_flipped_bit(ground: Ground) -> None:
    ground.found()
    ground.back_up()
    flip_a_bit_of_the_largest_pack(Path(ground.place.url))
    back = ground.site.folder / "back" / ground.tree.parent.name
    event = asyncio.run(ground.site.run("restore", options={"to": str(back), "allow_devices": True}))
    assert event["type"] == "io.snappy.restore.failed"
    assert BY_CODE[event["data"]["error"]["code"]].exit_code == Damaged.exit_code
    with pytest.raises(AssertionError):
        ground.check()


def flip_a_bit_of_the_largest_pack(repository: Path) -> None:
    pack = max(repository.glob("data/*/*"), key=lambda path: path.stat().st_size)
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(content)


# ---- locks -----------------------------------------------------------------------------------------------------------


@contextmanager
def held_by_restic(ground: Ground) -> Iterator[None]:
    """A restic at work with an exclusive lock: a check that may read no more than a kibibyte a second. In the end it
    dies, and leaves its lock."""
    command = [ground.restic.program, "check", "--read-data", "--no-cache", "--limit-download", "1"]
    with subprocess.Popen(
        command, env=ground.restic.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_until(ground.place.locks)
            yield
            assert process.poll() is None, "restic held no lock to the end"
        finally:
            process.kill()


@pytest.mark.parametrize("place", ["folder"], indirect=True)
def test_a_backup_yields_to_restics_exclusive_lock_while_it_lives(ground: Ground) -> None:
    ground.found()
    ground.back_up_by_restic()
    with held_by_restic(ground):
        event = asyncio.run(ground.site.run("backup", **ground.backup()))
    error = event["data"]["error"]
    assert (event["type"], error["code"]) == ("io.snappy.backup.failed", RepositoryLocked.code)
    assert (error["hint"], error["retryable"]) == (RepositoryLocked.hint, True)
    assert "exclusively" in error["message"]
    assert len(ground.place.objects("snapshots")) == 1
    assert len(ground.place.locks()) == 1
    ground.back_up()
    assert len(ground.place.locks()) == 1
    ground.restic.run("unlock")
    ground.check()


@contextmanager
def amid_a_backup(ground: Ground) -> Iterator[Callable[[], dict[str, Any]]]:
    """A backup by Snappy that holds its lock and stands still until the context ends; then what it came to."""
    source = ground.site.processes["site1"]
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(asyncio.run, ground.site.run("backup", **ground.backup(force=True)))
        wait_until(ground.place.locks)
        source.send_signal(signal.SIGSTOP)
        try:
            assert ground.place.locks(), "the backup was faster than this test"
            yield lambda: succeeded(ended.result(SECONDS))
        finally:
            source.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("place", ["folder"], indirect=True)
def test_restics_prune_yields_to_a_backup(ground: Ground) -> None:
    ground.found()
    ground.back_up()
    change_tree(ground.tree, 1)
    before = ground.place.objects("data")
    with amid_a_backup(ground) as ended:
        refused = ground.restic.attempt("prune")
        beside = ground.restic.attempt("backup", "--host", HOST, "--tag", "beside", ground.tree)
    assert refused.returncode != 0
    assert b"already locked" in refused.stderr
    assert b"snappy.site1." in refused.stderr
    assert beside.returncode == 0, beside.stderr
    assert ended()["snapshot"]
    assert before.items() <= ground.place.objects("data").items()
    ground.restic.run("prune", "--max-unused", "0")
    ground.check()
    ground.assert_restic_restores()
