from __future__ import annotations

import contextlib
import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snappy.bus.protocol import (
    FRAME_LIMIT,
    MESSAGE_OVERHEAD,
    OPERATIONS,
    PREFIX_SIZE,
    VERSION,
    Answer,
    Item,
    Kind,
    PageAnswer,
    PathRequest,
    Put,
    decode,
    encode,
    frame_size,
    named_hash,
    pack_frame,
    pack_length,
    parse_frame,
    parse_length,
    seal,
    unseal,
)
from snappy.errors import BusError, Garbled, SnappyError

DIGEST = hashlib.sha256(b"content").hexdigest()


@given(st.sampled_from(Kind), st.integers(0, 2**64 - 1), st.binary(max_size=4096))
def test_a_frame_comes_back_as_it_was(kind: Kind, offset: int, rest: bytes) -> None:
    frame = parse_frame(bytes(pack_frame(kind, offset, rest)))
    assert (frame.kind, frame.offset, bytes(frame.rest)) == (kind, offset, rest)


@given(st.binary(max_size=200))
def test_what_is_no_frame_raises_our_errors_alone(raw: bytes) -> None:
    try:
        frame = parse_frame(raw)
    except SnappyError:
        return
    assert raw[:PREFIX_SIZE] == bytes(pack_frame(frame.kind, frame.offset))[:9] + raw[9:PREFIX_SIZE]


@given(st.sampled_from(sorted(OPERATIONS)), st.binary(max_size=200))
def test_what_is_no_message_raises_bus_error_alone(operation: str, raw: bytes) -> None:
    for kind in OPERATIONS[operation]:
        with contextlib.suppress(BusError):
            assert isinstance(decode(raw, kind), kind)


@given(st.sampled_from(Kind), st.data())
def test_a_flipped_bit_of_a_frame_is_found(kind: Kind, data: st.DataObject) -> None:
    """But for the bytes of a WRITE: the SHA-256 that follows them finds those."""
    raw = bytes(pack_frame(kind, 1 << 20, bytes(100)))
    last = PREFIX_SIZE if kind is Kind.WRITE else len(raw)
    with pytest.raises(Garbled):
        parse_frame(flipped(raw, data.draw(st.integers(0, last * 8 - 1))))


@given(st.sampled_from(sorted(OPERATIONS)), st.data())
def test_a_flipped_bit_of_a_control_message_is_found(operation: str, data: st.DataObject) -> None:
    raw = bytes(seal(Answer(clock=1.5)))
    assert unseal(raw, OPERATIONS[operation].answer).clock == 1.5
    with pytest.raises(Garbled):
        unseal(flipped(raw, data.draw(st.integers(0, len(raw) * 8 - 1))), OPERATIONS[operation].answer)


@given(st.binary(max_size=8))
def test_what_is_not_sealed_is_not_read(raw: bytes) -> None:
    with pytest.raises(BusError):
        unseal(raw, PathRequest)


def flipped(raw: bytes, bit: int) -> bytes:
    harmed = bytearray(raw)
    harmed[bit // 8] ^= 1 << bit % 8
    return bytes(harmed)


def test_a_fetch_frame_holds_a_length() -> None:
    assert parse_length(memoryview(pack_length(1 << 20))) == 1 << 20
    with pytest.raises(BusError):
        parse_length(memoryview(b"12345"))


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (1 << 20, 1 << 20, (1 << 20) - MESSAGE_OVERHEAD),
        (2 << 20, 1 << 20, (1 << 20) - MESSAGE_OVERHEAD),
        (2 << 20, 8 << 20, FRAME_LIMIT),
        (64 << 10, 2 << 20, (64 << 10) - MESSAGE_OVERHEAD),
    ],
)
def test_a_frame_fits_the_smallest_limit(ours: int, theirs: int, expected: int) -> None:
    assert frame_size(ours, theirs) == expected
    assert len(bytes(pack_frame(Kind.DATA, 0, bytes(expected)))) <= min(ours, theirs)


def test_neighbours_one_version_apart_understand_each_other() -> None:
    newer = msgspec.msgpack.encode({"path": "config", "v": VERSION + 1, "unheard-of": True})
    assert decode(newer, PathRequest).path == "config"
    with pytest.raises(BusError, match="version"):
        decode(encode(PathRequest(path="config", v=VERSION + 2)), PathRequest)


def test_an_answer_comes_back_as_it_was() -> None:
    page = PageAnswer(
        clock=1.5, items=[Item("data/ab", 0, "directory"), Item("config", 155, "file", 2.5)], cursor="config"
    )
    assert decode(encode(page), PageAnswer) == page
    assert decode(encode(page), Answer).clock == 1.5


def test_a_put_carries_its_bytes_once() -> None:
    put = Put(path="config", data=bytes(1000))
    assert len(encode(put)) < 1000 + 100


@pytest.mark.parametrize(
    ("path", "named"),
    [
        (f"data/{DIGEST[:2]}/{DIGEST}", True),
        (f"data/{DIGEST}", True),
        (f"index/{DIGEST}", True),
        (f"snapshots/{DIGEST}", True),
        (f"keys/{DIGEST}", True),
        (f"locks/{DIGEST}", True),
        ("config", False),
        (DIGEST, False),
        (f"other/{DIGEST}", False),
        (f"data/ab/{DIGEST[:-1]}", False),
        (f"data/ab/{DIGEST}.part", False),
        (f"data/ab/{DIGEST.upper()}", False),
    ],
)
def test_the_objects_of_a_repository_are_named_by_their_hash(path: str, named: bool) -> None:
    assert named_hash(path) == (DIGEST if named else "")
