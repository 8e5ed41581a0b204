"""Roles: which a configuration holds, what belongs to each, and the embedded core's key."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from snappy import serve
from snappy.config import Audit, Config, Core, Nats, SourceService, TargetService
from snappy.errors import UsageError
from snappy.serve import Host, Role

SETTINGS = Config(
    nats=Nats(url="nats://bus"),
    core=Core(),
    audit=Audit(path="/audit"),
    source={"site": SourceService(nats=Nats(url="nats://own", user="site"))},
    target={"vault": TargetService(url="memory://x")},
)


DEAF = """
import asyncio
from snappy import serve

async def deaf():
    print("here", flush=True)
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            pass

serve.STOP_SECONDS = 0.3
asyncio.run(serve.until_signalled(deaf()))
"""


def test_a_process_that_does_not_stop_says_what_it_waits_for_and_ends() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", DEAF], stdout=pipe, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGTERM)
        said = process.stdout.read()
        assert process.wait(20) == 1
    assert "the process did not stop in time" in said
    assert "in deaf" in said


def test_the_roles_of_a_configuration() -> None:
    assert [str(role) for role in serve.roles_of(SETTINGS)] == ["core", "audit", "source site", "target vault"]
    assert [role.user for role in serve.roles_of(SETTINGS)] == ["core", "audit", "site", "vault"]
    assert serve.roles_of(Config()) == []


def test_each_role_has_its_section() -> None:
    assert serve.section(SETTINGS, Role("audit")) == Audit(path="/audit")
    assert serve.section(Config(), Role("core")) == Core()
    with pytest.raises(UsageError, match=r"\[source.sight\]") as caught:
        serve.section(SETTINGS, Role("source", "sight"))
    assert "site" in caught.value.hint


def test_each_role_has_its_way_to_the_bus() -> None:
    host = Host(SETTINGS)
    assert host.way(Role("source", "site")).user == "site"
    assert host.way(Role("target", "vault")).url == "nats://bus"
    assert Host(SETTINGS, nats=lambda role: Nats(url=role.user)).way(Role("core")).url == "core"


def test_a_source_keeps_indexes_in_the_state_folder_unless_told_not_to() -> None:
    keeps, does_not = SourceService(), SourceService(index_cache=False)
    assert serve._index_cache(Config(state_dir="/state"), keeps) == Path("/state/indexes")
    assert serve._index_cache(Config(state_dir="/state"), does_not) is None
    assert serve._index_cache(Config(), keeps) is None


def test_the_signing_key_is_kept_and_is_nobodys_but_ours(tmp_path: Path) -> None:
    state = tmp_path / "new" / "state"
    first = serve.kept_signing_key(str(state))
    assert serve.kept_signing_key(str(state)).public_text() == first.public_text()
    assert stat.S_IMODE((state / "core.key").stat().st_mode) == 0o600
    assert [path.name for path in state.iterdir()] == ["core.key"]


def test_a_signing_key_that_another_process_made_meanwhile_is_taken(tmp_path: Path) -> None:
    first = serve.kept_signing_key(str(tmp_path))
    assert serve._make_signing_key(tmp_path / "core.key").public_text() == first.public_text()


async def test_a_source_with_storage_options_shares_no_process() -> None:
    settings = Config(
        source={"site": SourceService(storage_options={"s3": {"key": "k"}})},
        target={"vault": TargetService(url="memory://x")},
    )
    with pytest.raises(UsageError, match="storage_options") as caught:
        await serve.run(Host(settings), serve.roles_of(settings))
    assert "--split" in caught.value.hint
