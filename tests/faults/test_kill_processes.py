"""Each process of a site killed amid a backup and amid a restore: the job goes on when it is started again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.faults import MIB, Arena, arena, make_noise

pytestmark = [pytest.mark.timeout(300), pytest.mark.restic]

SIZE = 96 * MIB
MOMENT = 24 * MIB


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    folder = tmp_path_factory.mktemp("arena")
    with arena(folder) as made:
        yield made


def kill_process(user: str) -> Callable[[Arena], None]:
    def strike(site: Arena) -> None:
        site.kill(user)
        site.start(user)

    return strike


def kill_server(site: Arena) -> None:
    site.server.server.restart()


VICTIMS = {user: kill_process(user) for user in ("core", "site1", "vault", "audit")} | {"nats-server": kill_server}
QUICK = ("site1", "vault", "nats-server")
"""Those whose death the bytes under way notice; the others are struck by the soak and by the long tests."""


@pytest.mark.parametrize(
    "victim", [one if one in QUICK else pytest.param(one, marks=pytest.mark.long) for one in VICTIMS]
)
async def test_a_job_survives_a_kill(running: Arena, victim: str, restic: str) -> None:
    tree = make_noise(running.data / victim, SIZE)
    backup = await running.backup(tree)
    await running.amid(backup, running.folder / "repository" / "data", MOMENT)
    await strike(running, victim, backup)
    saved = await running.succeeded(backup)
    snapshot = saved["result"]["snapshot"]

    restore = await running.restore(victim, snapshot)
    await running.amid(restore, running.folder / "back" / victim, MOMENT)
    await strike(running, victim, restore)
    brought = await running.succeeded(restore)

    assert running.expect_same(victim, tree) == SIZE
    for record in (saved, brought):
        await running.expect_told_once(record)
        lost = [attempt["error"]["code"] for attempt in record["attempts"] if attempt.get("error")]
        assert lost == (["attempt-lost"] if victim == "site1" else []), record["attempts"]
    await running.expect_audit_whole()
    assert running.snapshots_of(restic, saved["id"]) == [snapshot]
    running.expect_sound(restic)


async def strike(running: Arena, victim: str, request: str) -> None:
    """The fault, at a job that runs."""
    assert (await running.record(request))["state"] == "running"
    VICTIMS[victim](running)
