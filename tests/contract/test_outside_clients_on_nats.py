"""The two clients that share no code with Snappy, against a bare nats-server: what they say must be NATS."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import node_client, raw_nats
from tests.support.natsserver import NatsServer, nats_server

CONFIG = """
jetstream { store_dir: "%s" }
authorization { users: [
  { user: alice, password: secret, permissions: {
      publish: [ "snappy.cmd.*.alice", "snappy.event.>", "$JS.API.>", "_INBOX.alice.>" ]
      subscribe: [ "snappy.event.>", "_INBOX.alice.>" ] } } ] }
"""
STREAM = {"name": "COMMANDS", "subjects": ["snappy.cmd.>"], "retention": "workqueue", "storage": "memory"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    folder = tmp_path_factory.mktemp("nats")
    with nats_server(folder, CONFIG % (folder / "store")) as running:
        yield running


async def make_stream(client: raw_nats.RawClient) -> None:
    answer = await client.request("$JS.API.STREAM.CREATE.COMMANDS", json.dumps(STREAM).encode())
    assert "error" not in json.loads(answer.body)


async def test_a_request_to_a_stream_brings_its_receipt(server: NatsServer) -> None:
    async with raw_nats.connect(server.url, "alice", "secret") as client:
        await make_stream(client)
        answer = await client.request("snappy.cmd.backup.alice", b"{}")
        assert json.loads(answer.body)["stream"] == "COMMANDS"


async def test_a_message_arrives_with_its_headers(server: NatsServer) -> None:
    async with raw_nats.connect(server.url, "alice", "secret") as client:
        queue = await client.subscribe("snappy.event.>")
        await client.publish("snappy.event.a.b.1", b"with\r\nline ends", headers="Color: blue\r\nSize: 3")
        await client.publish("snappy.event.a.b.2", b"", reply="_INBOX.alice.1")
        first, second = [await asyncio.wait_for(queue.get(), 10) for _ in range(2)]
    assert first == ("snappy.event.a.b.1", "", "Color: blue\r\nSize: 3", b"with\r\nline ends")
    assert second == ("snappy.event.a.b.2", "_INBOX.alice.1", "", b"")


async def test_nobody_answers(server: NatsServer) -> None:
    async with raw_nats.connect(server.url, "alice", "secret") as client:
        with pytest.raises(raw_nats.ServerError, match="no responders"):
            await client.request("snappy.event.nobody", b"")


async def test_what_is_not_allowed_is_told(server: NatsServer) -> None:
    async with raw_nats.connect(server.url, "alice", "secret") as client:
        with pytest.raises(raw_nats.ServerError, match="Permissions Violation"):
            await client.publish("snappy.cmd.backup.bob", b"{}")


async def test_a_wrong_password_is_told(server: NatsServer) -> None:
    with pytest.raises(raw_nats.ServerError, match="Authorization Violation"):
        async with raw_nats.connect(server.url, "alice", "wrong"):
            pytest.fail("it let us in")


@pytest.mark.node
async def test_node_publishes_and_reads_the_end_of_its_own_job(server: NatsServer, tmp_path: Path) -> None:
    folder = await asyncio.to_thread(node_client.install, tmp_path)
    async with raw_nats.connect(server.url, "alice", "secret") as client:
        await make_stream(client)
        submitted = asyncio.create_task(
            node_client.submit(
                folder, server.url, "snappy.cmd.backup.alice", {"request": "r1"}, user="alice", password="secret"
            )
        )
        while not submitted.done():
            for request, name in (("other", "succeeded"), ("r1", "started"), ("r1", "succeeded")):
                body = json.dumps({"request": request, "type": name}).encode()
                await client.publish(f"snappy.event.backup.{name}.1", body)
            await asyncio.wait([submitted], timeout=0.2)
        receipt, event = await submitted
    assert receipt["stream"] == "COMMANDS"
    assert event == {"request": "r1", "type": "succeeded"}
