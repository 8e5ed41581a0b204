"""The service of ``examples/node`` in the contract: it is no program of ours, and knows of Snappy what docs/protocol.md
says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from snappy.jobs.messages import JobRecord
from snappy.jobs.states import State
from tests.support import node_client, restic, source_site, tools
from tests.support.replaced_file import ReplacedFile
from tests.support.source_contract import LARGE, Ground, Refused, SourceContract
from tests.support.source_site import SourceSite

EXAMPLE = tools.ROOT / "examples" / "node"

pytestmark = pytest.mark.node


class NodeGround(ReplacedFile):
    plugin = "file"
    changes_share = 0.1
    works_in_folder = False

    def settings(self) -> dict[str, dict[str, Any]]:
        return {}

    def options(self) -> dict[str, Any]:
        return {"path": str(self.here)}

    def restore_options(self, other: bool) -> dict[str, Any]:
        return {"to": str(self.there if other else self.here)}

    def restore_into(self, folder: Path) -> dict[str, Any] | None:
        return {"to": str(folder)}

    def leftovers(self) -> list[str]:
        return [str(path) for path in self.folder.glob(".*")]

    def refused(self) -> Sequence[Refused]:
        return [
            Refused("a file that there is not", "source-missing", {"path": str(self.there)}),
            Refused("a folder", "bad-options", {"path": str(self.folder)}),
            Refused("a path that is none", "bad-options", {"path": "here"}),
            Refused("an option that there is not", "bad-options", {"path": str(self.here), "paht": 1}),
            Refused("a place that is taken", "already-exists", {"to": str(self.here)}, "restore"),
            Refused("a folder that there is not", "source-missing", {"to": "/no/such/folder"}, "restore"),
        ]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return NodeGround(tmp_path_factory.mktemp("file"))


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return node_client.install(tmp_path_factory.mktemp("example"), EXAMPLE)


class TestNode(SourceContract):
    """All that is asked of any other, but for a full folder to work in: it has none."""

    @pytest.fixture(autouse=True)
    def _in_node(self, example: Path) -> None:
        self.program = _program(example)


@pytest.mark.restic_newest
async def test_the_real_restic_reads_what_it_wrote_and_it_reads_what_restic_wrote(
    ground: NodeGround, example: Path, tmp_path: Path
) -> None:
    ground.wipe()
    ground.fill(LARGE // 2)
    judge = _judge(tools.newest_restic(), tmp_path)
    async with running(tmp_path, example) as site:
        await site.done("backup", options=ground.options(), init=True)
        await asyncio.to_thread(judge.check)
        await asyncio.to_thread(judge.run, "restore", "latest", "--target", str(tmp_path / "back"))
        assert (tmp_path / "back" / ground.here.relative_to("/")).read_bytes() == ground.content(False)
        ground.here.write_bytes(b"easily compressed " * 200_000)
        await asyncio.to_thread(judge.run, "backup", str(ground.here))
        await site.done("restore", options=ground.restore_options(True))
    assert ground.content(True) == ground.content(False)


async def test_it_makes_a_repository_once_and_says_what_it_cannot_do(
    ground: NodeGround, example: Path, tmp_path: Path
) -> None:
    ground.wipe()
    ground.fill(1)
    backup, restore = {"plugin": "file", "options": ground.options()}, {"plugin": "file", "options": {"to": "/no"}}
    async with running(tmp_path, example) as site:
        assert _code(await _ended(site, "backup", backup)) == "not-a-repository"
        assert (await _ended(site, "init", {})).state is State.SUCCEEDED
        assert _code(await _ended(site, "init", {})) == "repository-exists"
        assert _code(await _ended(site, "restore", restore)) == "snapshot-not-found"
        assert _code(await _ended(site, "check", {})) == "invalid-command"
        assert _code(await _ended(site, "backup", backup | {"tags": ["snappy-job:x"]})) == "bad-options"
        assert _code(await _ended(site, "restore", restore | {"include": ["x"]})) == "bad-options"
        assert _code(await _ended(site, "backup", backup | {"key": "next"})) == "unknown-key"
        (tmp_path / "password").write_text("wrong")
        assert _code(await _ended(site, "backup", backup)) == "wrong-password"


@pytest.mark.long
async def test_a_service_that_is_stopped_gives_its_job_back(ground: NodeGround, example: Path, tmp_path: Path) -> None:
    ground.wipe()
    ground.fill(LARGE)
    async with running(tmp_path, example) as site:
        await site.throttle("4M")
        async with site.own_process() as process:
            job = await site.started("backup", options=ground.options(), init=True)
            await site.amid(job)
            process.terminate()
            assert await asyncio.to_thread(process.wait, 20) == 0
        assert site.leftovers() == []
        await site.throttle("")
        async with site.own_process():
            await site.attempted_again(job)


def running(folder: Path, example: Path) -> AbstractAsyncContextManager[SourceSite]:
    return source_site.running(folder, NodeGround.plugin, {}, program=_program(example))


def _program(example: Path) -> Sequence[str]:
    return ("node", str(example / "main.mjs"))


def _judge(program: str | None, folder: Path) -> restic.Restic:
    return restic.Restic(str(program), folder / "vault", "right", folder / "cache")


async def _ended(site: SourceSite, kind: str, command: dict[str, Any]) -> JobRecord:
    job = await site.client.submit(kind, {"source": "site", "target": "vault"} | command)
    return await site.client.wait(job.id, poll=0.5)


def _code(record: JobRecord) -> str:
    return record.error.code if record.error else ""


@pytest.mark.long
@pytest.mark.restic
async def test_a_target_that_is_started_anew_amid_a_backup_interrupts_nothing(
    ground: NodeGround, example: Path, tmp_path: Path
) -> None:
    ground.wipe()
    ground.fill(LARGE)
    async with running(tmp_path, example) as site:
        await site.throttle("4M")
        job = await site.started("backup", options=ground.options(), init=True)
        await site.amid(job)
        await site.throttle("")
        record = await site.client.wait(job.id)
        assert record.state is State.SUCCEEDED, record.error
        assert len(record.attempts) == 1
        assert site.leftovers() == []
        await site.done("restore", options=ground.restore_options(True))
    assert ground.content(True) == ground.content(False)
    await asyncio.to_thread(_judge(tools.restic(), tmp_path).check)


@pytest.mark.long
@pytest.mark.restic
async def test_what_an_attempt_finished_that_was_lost_is_taken_for_the_job_s_own(
    ground: NodeGround, example: Path, tmp_path: Path
) -> None:
    ground.wipe()
    ground.fill(LARGE)
    judge = _judge(tools.restic(), tmp_path)
    async with running(tmp_path, example) as site:
        await site.throttle("4M")
        async with site.own_process() as process:
            job = await site.started("backup", options=ground.options(), init=True)
            await site.amid(job)
            process.kill()
        await asyncio.to_thread(judge.run, "backup", str(ground.here), "--tag", f"snappy-job:{job.id}")
        await site.throttle("")
        async with site.own_process():
            await site.attempted_again(job)
        record = await site.client.get(job.id)
    snapshots = judge.json("snapshots")
    assert record.result
    assert [one["id"] for one in snapshots] == [record.result.snapshot]
