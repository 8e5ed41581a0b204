"""Who knows what, shown from outside: separate processes under deploy/nats.conf, their memory and their wires."""

from __future__ import annotations

import asyncio
import os
import secrets
import string
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import pytest

from tests.support.process_memory import holds
from tests.support.site import ROLES, Site, site
from tests.support.weed import weed_server
from tests.support.wire_proxy import sightings

pytestmark = pytest.mark.timeout(240)
UNSEALED = [sys.executable, str(Path(__file__).parents[1] / "support" / "unsealed.py")]
NAME_CHARACTERS = (string.ascii_letters + string.digits).encode()
LONG_ENOUGH_FOR_PROGRESS = 64 << 20
"""Bytes: so that the jobs tell how far they are, while they are at what is marked."""
ENGINE_AND_STORAGE = ("snappy.repository", "snappy.sources", "snappy.targets", "fsspec", "s3fs", "aiobotocore")


class Evidence(NamedTuple):
    """A site that has backed up and restored ``markers``; ``credential`` opens its target."""

    site: Site
    credential: str
    markers: dict[str, bytes]


def plant(folder: Path) -> dict[str, bytes]:
    """A tree with 64 random bytes each in content, a name, an extended attribute and a link's target."""
    markers = {kind: secrets.token_bytes(64) for kind in ("content", "xattr")}
    markers |= {kind: bytes(secrets.choice(NAME_CHARACTERS) for _ in range(64)) for kind in ("name", "link")}
    folder.mkdir()
    file = folder / os.fsdecode(markers["name"])
    file.write_bytes(b"before " + markers["content"] + secrets.token_bytes(LONG_ENOUGH_FOR_PROGRESS))
    os.setxattr(file, "user.marker", markers["xattr"])
    (folder / "link").symlink_to(os.fsdecode(markers["link"]))
    return markers


async def back_up_and_restore(running: Site) -> None:
    data, back = str(running.folder / "data"), str(running.folder / "back")
    jobs: list[tuple[str, dict[str, Any]]] = [
        ("backup", {"options": {"paths": [data]}, "init": True, "compression": "off"}),
        ("restore", {"options": {"to": back}}),
    ]
    for kind, command in jobs:
        event = await running.run(kind, **command)
        assert event["type"] == f"io.snappy.{kind}.succeeded", event
        assert event["data"]["result"]["warning_count"] == 0, event


@contextmanager
def used_site(folder: Path, target: dict[str, Any], program: list[str] | None = None) -> Iterator[Evidence]:
    markers = plant(folder / "data")
    with site(folder, target, program, direct=False) as running:  # every byte is to be seen
        asyncio.run(back_up_and_restore(running))
        yield Evidence(running, str(target.get("secret", "")), markers)


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evidence]:
    folder = tmp_path_factory.mktemp("site")
    with weed_server(tmp_path_factory.mktemp("weed")) as weed:
        fsspec.filesystem("s3", **weed.options, skip_instance_cache=True).mkdir("backups")
        with used_site(folder, {"url": "s3://backups/site1", **weed.options}) as found:
            yield found


def known(evidence: Evidence, user: str, secret: str) -> bool:
    """Whether a role's process, or any file it was given, holds the secret."""
    files = [path for path in (evidence.site.folder / user).rglob("*") if path.is_file()]
    given = any(secret.encode() in path.read_bytes() for path in files)
    return given or holds(evidence.site.processes[user].pid, secret.encode())


@pytest.mark.s3
def test_the_targets_credential_is_known_to_the_target_alone(evidence: Evidence) -> None:
    assert {user for user in ROLES if known(evidence, user, evidence.credential)} == {"vault"}


@pytest.mark.s3
def test_the_repositorys_password_is_known_to_the_source_alone(evidence: Evidence) -> None:
    assert {user for user in ROLES if known(evidence, user, evidence.site.repository_password)} == {"site1"}


@pytest.mark.s3
def test_the_signing_key_is_known_to_the_core_alone(evidence: Evidence) -> None:
    assert {user for user in ROLES if known(evidence, user, evidence.site.key.to_text())} == {"core"}


@pytest.mark.s3
def test_the_core_has_loaded_neither_the_engine_nor_a_storage(evidence: Evidence) -> None:
    imported = {user: evidence.site.imported(user) for user in ROLES}
    assert {"snappy.repository.repo", "fsspec"} <= imported["site1"]
    assert {"s3fs.core", "aiobotocore"} <= imported["vault"]
    for user in ("core", "audit"):
        assert "snappy.bus.connection" in imported[user]
        assert [name for name in imported[user] if name.startswith(ENGINE_AND_STORAGE)] == []
    assert [name for name in imported["vault"] if name.startswith("snappy.repository.")] == []


@pytest.mark.s3
def test_no_plain_data_and_no_secret_crossed(evidence: Evidence) -> None:
    hidden = {**evidence.markers, "password": evidence.site.repository_password.encode()}
    hidden |= {"credential": evidence.credential.encode(), "signing key": evidence.site.key.to_text().encode()}
    for user, proxy in evidence.site.proxies.items():
        assert proxy.total > 1000, user
        assert sightings(hidden, proxy.recorded) == set(), user


def test_without_sealing_every_marker_would_have_been_seen(tmp_path: Path) -> None:
    target = {"url": str(tmp_path / "repository")}
    with used_site(tmp_path, target, UNSEALED) as found:
        seen = {user: sightings(found.markers, proxy.recorded) for user, proxy in found.site.proxies.items()}
    assert {marker for marker, _ in seen["site1"]} == set(found.markers)
    assert {marker for marker, _ in seen["vault"]} == set(found.markers)
    assert seen["core"] == seen["audit"] == set()
