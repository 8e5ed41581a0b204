"""Keys over the bus, under real permissions: a rotation without a pause, and who may have a key removed."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from snappy.config import Allow, Config, Core, Secret, SourceService, TargetService
from snappy.errors import WrongPassword
from snappy.frontend.api import Client
from snappy.jobs.messages import JobRecord
from snappy.jobs.result_words import Keys
from snappy.jobs.states import State
from snappy.repository.repo import Repository
from tests.support.littered import store_of
from tests.support.stack import in_process, secret

OLD, NEW = "old password", "new password"


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    """Two source services with one repository."""
    allow = {name: Allow(kinds=["*"], plugins=["*"], targets=["vault"], read=["/"]) for name in ("alice", "bob")}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("content")
    files = {name: Secret(file=str(secret(tmp_path / name, OLD))) for name in ("site", "other")}
    new = Secret(file=str(secret(tmp_path / "new", NEW)))
    return Config(
        state_dir=str(tmp_path / "state"),
        core=Core(may_delete=["alice"]),
        source={
            "site": SourceService(keys={"default": files["site"], "next": new}, allow=allow, workers=1),
            "other": SourceService(keys={"default": files["other"]}, allow=allow, workers=1),
        },
        target={"vault": TargetService(url=str(tmp_path / "vault"), rights="rlwd")},
    )


async def done_of(client: Client, kind: str, *, source: str = "site", **more: object) -> JobRecord:
    submitted = await client.submit(kind, {"source": source, "target": "vault", **more})
    return await client.wait(submitted.id)


async def back_up(client: Client, folder: Path) -> None:
    for source in ("site", "other"):
        done = await done_of(client, "backup", source=source, init=True, options={"paths": [str(folder / "data")]})
        assert done.state is State.SUCCEEDED, done.error


async def keys_of(client: Client, action: str, **more: object) -> Keys:
    done = await done_of(client, "key", action=action, **more)
    assert done.result, done.error
    assert done.result.keys
    return done.result.keys


def stored(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "vault" / "keys").iterdir()}


async def test_a_rotation_without_a_pause(settings: Config, tmp_path: Path) -> None:
    async with (
        in_process(settings, ["alice", "bob"]) as inside,
        inside.client("alice") as alice,
        inside.client("bob") as bob,
    ):
        await back_up(alice, tmp_path)
        (old,) = (await keys_of(bob, "list")).keys
        added = await keys_of(bob, "add", new_key="next", host="moon")
        await back_up(alice, tmp_path)
        (tmp_path / "site").write_text(NEW)
        await back_up(alice, tmp_path)  # the other service has the old password still
        (tmp_path / "other").write_text(NEW)
        refused = await done_of(bob, "key", action="remove", id=old.id)
        assert stored(tmp_path) == {old.id, added.added}
        removed = await keys_of(alice, "remove", id=old.id)
        await back_up(alice, tmp_path)
    assert (refused.state, refused.error and refused.error.code) == (State.REJECTED, "denied")
    assert [(key.id, key.host, key.current) for key in removed.keys] == [(added.added, "moon", True)]
    assert stored(tmp_path) == {added.added}
    with pytest.raises(WrongPassword):
        Repository.open(store_of(tmp_path / "vault"), OLD)
    with Repository.open(store_of(tmp_path / "vault"), NEW) as repository:
        assert len(repository.snapshots()) == 8


async def test_where_nothing_is_deleted_a_change_leaves_both(settings: Config, tmp_path: Path) -> None:
    vault = replace(settings.target["vault"], rights="rlw")
    kept = replace(settings, target={"vault": vault})
    async with in_process(kept, ["alice"]) as inside, inside.client("alice") as alice:
        await done_of(alice, "init")
        (old,) = stored(tmp_path)
        changed = await done_of(alice, "key", action="change", new_key="next")
        both = stored(tmp_path)
        removed = await done_of(alice, "key", action="remove", id=old, key="next")
    assert [job.error and job.error.code for job in (changed, removed)] == ["access-denied"] * 2
    assert len(both) == 2
    assert stored(tmp_path) == both
    for password in (OLD, NEW):
        Repository.open(store_of(tmp_path / "vault"), password).close()
