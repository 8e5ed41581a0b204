from __future__ import annotations

import asyncio
import hashlib
import io
import os
import secrets
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from snappy.bus.failures import from_wire
from snappy.bus.protocol import (
    Answer,
    Commit,
    Frame,
    Kind,
    decode,
    encode,
    pack_frame,
    pack_length,
    parse_frame,
)
from snappy.bus.throttle import Pace
from snappy.bus.transfers import MAX_EARLY, GetTransfer, PutTransfer, Transfer
from snappy.errors import AttemptOver, BusError, Corrupt
from snappy.targets.policy import PolicyFileSystem

CONTENT = os.urandom(1000)
PIECE = 100
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Caller:
    """The other end: sends frames, and sees the answers."""

    def __init__(self) -> None:
        self.answers: dict[str, asyncio.Future[Frame]] = {}
        self.transfer: Transfer

    async def publish(self, reply: str, payload: bytes) -> None:
        self.answers[reply].set_result(parse_frame(bytes(payload)))

    def send(self, kind: Kind, offset: int = 0, rest: bytes = b"") -> asyncio.Future[Frame]:
        reply = f"_INBOX.{len(self.answers)}"
        self.answers[reply] = asyncio.get_running_loop().create_future()
        assert self.transfer.feed(bytes(pack_frame(kind, offset, rest)), reply)
        return self.answers[reply]

    def piece(self, number: int) -> asyncio.Future[Frame]:
        return self.send(Kind.WRITE, number * PIECE, CONTENT[number * PIECE :][:PIECE])

    def commit(self, size: int = len(CONTENT), sha256: str = DIGEST, grant: str = "") -> asyncio.Future[Frame]:
        return self.send(Kind.COMMIT, size, encode(Commit(size=size, sha256=sha256, grant=grant)))


def judged(frame: Frame) -> None:
    """Raises the error that an answer holds."""
    assert frame.kind is Kind.ANSWER
    answer = decode(frame.rest, Answer)
    if answer.failure:
        raise from_wire(answer.failure)


@pytest.fixture
def files() -> PolicyFileSystem:
    return PolicyFileSystem(MemoryFileSystem(), f"/{secrets.token_hex(8)}", "rlwWd")


@asynccontextmanager
async def putting(
    files: PolicyFileSystem, renew: Callable[[str], None] = str, idle: float = 60.0
) -> AsyncIterator[tuple[Caller, asyncio.Task[None]]]:
    caller = Caller()
    with ThreadPoolExecutor(4) as pool:
        draft = files.write("data/x", exclusive=True)
        caller.transfer = PutTransfer(draft, renew, Pace(), "site1", "data/x", caller.publish, pool, lambda: 7.0)
        running = asyncio.create_task(caller.transfer.run(idle))
        yield caller, running
        running.cancel()
        await asyncio.wait({running})


async def test_frames_in_order_make_the_object(files: PolicyFileSystem) -> None:
    async with putting(files) as (caller, running):
        for number in range(10):
            judged(await caller.piece(number))
        assert not files.exists("data/x")
        answer = await caller.commit()
        judged(answer)
        assert decode(answer.rest, Answer).clock == 7.0
        await running
    assert files.cat_file("data/x") == CONTENT


@pytest.mark.parametrize("seed", range(5))
async def test_frames_may_overtake_one_another_and_be_repeated(files: PolicyFileSystem, seed: int) -> None:
    order = [1, 0, 2, 2, 5, 4, 3, 5, 9, 8, 7, 9, 6, 0][seed:] + [1, 0, 2, 2, 5][:seed]
    async with putting(files) as (caller, _):
        sent = [caller.piece(number) for number in order]
        judged(await caller.commit())
        assert sum(each.done() for each in sent) >= 10
    assert files.cat_file("data/x") == CONTENT


async def test_a_gap_is_never_closed_by_the_commit(files: PolicyFileSystem) -> None:
    async with putting(files) as (caller, running):
        judged(await caller.piece(0))
        caller.piece(2)
        with pytest.raises(Corrupt, match="100 of 1000"):
            judged(await caller.commit())
        await running
    assert files.find("") == []


async def test_frames_far_ahead_of_their_turn_end_the_transfer(files: PolicyFileSystem) -> None:
    async with putting(files) as (caller, running):
        for ahead in range(MAX_EARLY):
            caller.send(Kind.WRITE, 100 + ahead, b"x")
            await asyncio.sleep(0)
        with pytest.raises(BusError):
            judged(await caller.send(Kind.WRITE, 5000, b"x"))
        await running
    assert files.find("") == []


async def test_a_flood_is_refused(files: PolicyFileSystem) -> None:
    async with putting(files) as (caller, _):
        accepted = [caller.transfer.feed(bytes(pack_frame(Kind.WRITE, 0, b"x")), "_INBOX.flood") for _ in range(100)]
        assert accepted == [True] * MAX_EARLY + [False] * (100 - MAX_EARLY)
        caller.answers["_INBOX.flood"] = asyncio.get_running_loop().create_future()


async def test_bytes_changed_on_the_way_leave_nothing(files: PolicyFileSystem) -> None:
    async with putting(files) as (caller, running):
        for number in range(10):
            judged(await caller.piece(number))
        with pytest.raises(Corrupt):
            judged(await caller.commit(sha256=hashlib.sha256(b"other").hexdigest()))
        await running
    assert files.find("") == []


async def test_the_grant_of_the_commit_is_the_one_that_counts(files: PolicyFileSystem) -> None:
    grants = ["first"]

    def gate(_right: str) -> None:
        if grants[-1] == "ran out":
            raise AttemptOver("the grant ran out")

    async with putting(files.asking(gate), grants.append) as (caller, running):
        for number in range(10):
            judged(await caller.piece(number))
        with pytest.raises(AttemptOver):
            judged(await caller.commit(grant="ran out"))
        await running
    assert files.find("") == []


async def test_a_repeated_commit_gets_the_first_one_s_answer(files: PolicyFileSystem) -> None:
    async with putting(files) as (caller, running):
        for number in range(10):
            judged(await caller.piece(number))
        both = caller.commit(), caller.commit()
        for answer in both:
            judged(await answer)
        await running
        assert caller.transfer.outcome is not None
        judged(parse_frame(bytes(caller.transfer.outcome)))
    assert files.cat_file("data/x") == CONTENT


async def test_an_idle_put_leaves_nothing(files: PolicyFileSystem) -> None:
    async with putting(files, idle=0.05) as (caller, running):
        judged(await caller.piece(0))
        async with asyncio.timeout(10):
            await running
    assert files.find("") == []
    assert files.fs.find(files.root) == []


async def test_an_aborted_put_leaves_nothing(files: PolicyFileSystem) -> None:
    async with putting(files) as (caller, running):
        judged(await caller.piece(0))
        judged(await caller.send(Kind.ABORT))
        await running
    assert files.find("") == []


@pytest.mark.parametrize("kind", [Kind.FETCH, Kind.CLOSE, Kind.DATA])
async def test_a_frame_that_is_none_of_a_put_ends_it(files: PolicyFileSystem, kind: Kind) -> None:
    async with putting(files) as (caller, running):
        rest = bytes(pack_frame(kind, 0, b""))
        caller.answers["_INBOX.x"] = asyncio.get_running_loop().create_future()
        caller.transfer.feed(rest, "_INBOX.x")
        with pytest.raises(BusError):
            judged(await caller.answers["_INBOX.x"])
        await running


@asynccontextmanager
async def getting(start: int, size: int, *, digests: bool = True) -> AsyncIterator[tuple[Caller, io.BytesIO]]:
    caller, handle = Caller(), io.BytesIO(CONTENT)
    with ThreadPoolExecutor(4) as pool:
        common = ("site1", "data/x", caller.publish, pool, lambda: 7.0)
        caller.transfer = GetTransfer(handle, start, size, PIECE, digests, Pace(), *common)
        running = asyncio.create_task(caller.transfer.run(60.0))
        yield caller, handle
        running.cancel()
        await asyncio.wait({running})


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [0, 0, 2, 1, 2]])
async def test_a_range_is_fetched_in_any_order_and_its_digest_is_right(order: list[int]) -> None:
    async with getting(50, 250) as (caller, handle):
        got = bytearray(250)
        for number in order:
            frame = await caller.send(Kind.FETCH, number * PIECE, pack_length(PIECE))
            assert frame.kind is Kind.DATA
            got[frame.offset : frame.offset + len(frame.rest)] = frame.rest
        assert bytes(got) == CONTENT[50:300]
        assert (await caller.send(Kind.CLOSE)).rest == hashlib.sha256(CONTENT[50:300]).digest()
    assert handle.closed


async def test_a_caller_with_a_proof_of_its_own_gets_no_digest() -> None:
    async with getting(0, 1000, digests=False) as (caller, _):
        await caller.send(Kind.FETCH, 0, pack_length(PIECE))
        assert (await caller.send(Kind.CLOSE)).rest == b""


@pytest.mark.parametrize("offset", [250, 10_000])
async def test_nothing_is_fetched_outside_the_range(offset: int) -> None:
    async with getting(50, 250) as (caller, _):
        with pytest.raises(BusError):
            judged(await caller.send(Kind.FETCH, offset, pack_length(PIECE)))


async def test_an_object_that_shrank_is_not_served_short() -> None:
    async with getting(900, 250) as (caller, _):
        await caller.send(Kind.FETCH, 0, pack_length(PIECE))
        with pytest.raises(Corrupt):
            judged(await caller.send(Kind.FETCH, PIECE, pack_length(PIECE)))
