"""Edge services that know nothing of Snappy's code: they publish a job over NATS and read its end by `request`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import node_client, raw_nats
from tests.support.site import Site, site

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "data").mkdir()
    (folder / "data" / "file").write_text("content")
    with site(folder, {"url": str(folder / "repository")}) as made:
        asyncio.run(made.run("init"))
        yield made


def backup_of(running: Site, request: str) -> dict[str, Any]:
    options = {"paths": [str(running.folder / "data")]}
    return {"source": "site1", "target": "vault", "request": request, "options": options}


def check_success(running: Site, event: dict[str, Any], request: str) -> None:
    assert (event["type"], event["request"], event["submitter"]) == ("io.snappy.backup.succeeded", request, "alice")
    snapshot = event["data"]["result"]["snapshot"]
    assert (running.folder / "repository" / "snapshots" / snapshot).is_file()


async def next_end(events: asyncio.Queue[raw_nats.Message], request: str) -> dict[str, Any]:
    while True:
        message = await asyncio.wait_for(events.get(), 60)
        event: dict[str, Any] = json.loads(message.body)
        if event.get("request") == request and message.subject.split(".")[3] in ("succeeded", "failed", "rejected"):
            return event


async def test_nats_req_brings_the_receipt_and_nats_sub_the_end(running: Site) -> None:
    async with raw_nats.connect(running.server.url, "alice", running.password("alice")) as client:
        events = await client.subscribe("snappy.event.backup.succeeded.*")
        body = json.dumps(backup_of(running, "by-req")).encode()
        receipt = json.loads((await client.request("snappy.cmd.backup.alice", body)).body)
        assert receipt["stream"] == "SNAPPY_COMMANDS"
        check_success(running, await next_end(events, "by-req"), "by-req")


async def test_nats_pub_is_enough(running: Site) -> None:
    async with raw_nats.connect(running.server.url, "alice", running.password("alice")) as client:
        events = await client.subscribe("snappy.event.>")
        await client.publish("snappy.cmd.backup.alice", json.dumps(backup_of(running, "by-pub")).encode())
        check_success(running, await next_end(events, "by-pub"), "by-pub")


async def test_a_repeat_by_request_runs_once(running: Site) -> None:
    async with raw_nats.connect(running.server.url, "alice", running.password("alice")) as client:
        events = await client.subscribe("snappy.event.backup.accepted.*")
        for request in ("repeated", "repeated", "after"):
            await client.request("snappy.cmd.backup.alice", json.dumps(backup_of(running, request)).encode())
        accepted = [await raw_nats.next_json(events) for _ in range(2)]
    assert [event["request"] for event in accepted] == ["repeated", "after"]


async def test_a_mistake_is_answered_with_its_place(running: Site) -> None:
    async with raw_nats.connect(running.server.url, "alice", running.password("alice")) as client:
        events = await client.subscribe("snappy.event.backup.rejected.*")
        body = {**backup_of(running, "mistaken"), "tags": "no list"}
        await client.publish("snappy.cmd.backup.alice", json.dumps(body).encode())
        error = (await next_end(events, "mistaken"))["data"]["error"]
    assert error["code"] == "invalid-command"
    assert "$.tags" in error["message"]


async def test_another_submitters_subject_is_refused(running: Site) -> None:
    async with raw_nats.connect(running.server.url, "alice", running.password("alice")) as client:
        with pytest.raises(raw_nats.ServerError, match="Permissions Violation"):
            await client.publish("snappy.cmd.backup.bob", json.dumps(backup_of(running, "forged")).encode())


@pytest.mark.node
async def test_node_publishes_a_job_and_reads_its_end(running: Site, tmp_path: Path) -> None:
    folder = await asyncio.to_thread(node_client.install, tmp_path)
    receipt, event = await node_client.submit(
        folder,
        running.server.url,
        "snappy.cmd.backup.alice",
        backup_of(running, "by-node"),
        user="alice",
        password=running.password("alice"),
    )
    assert receipt["stream"] == "SNAPPY_COMMANDS"
    check_success(running, event, "by-node")
