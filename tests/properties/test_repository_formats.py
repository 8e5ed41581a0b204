"""Whatever goes in comes out again; and no bytes, however odd, raise anything but our own errors."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import get_args

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from snappy.errors import SnappyError
from snappy.repository.chunker import Chunker
from snappy.repository.compression import Compressor, decompress
from snappy.repository.crypto import SealingKey
from snappy.repository.documents import unwrap
from snappy.repository.entries import Node, NodeType
from snappy.repository.format import BlobLocation, BlobType, decode_json
from snappy.repository.gotext import format_time, parse_time, quote, unquote
from snappy.repository.index import MemoryIndex, decode_index, encode_index
from snappy.repository.index_table import GrowingTable, all_locations
from snappy.repository.keys import KeyFile
from snappy.repository.pack import PackBuilder, PackedBlob, PackMemory, decode_header, encode_header, read_header
from snappy.repository.snapshots import Snapshot
from snappy.repository.tree import decode_tree, encode_node, encode_tree

KEY = SealingKey(b"e" * 32, b"k" * 16, b"r" * 16)
IDS = st.binary(min_size=32, max_size=32)
KINDS = st.sampled_from(BlobType)
WORDS = st.integers(0, (1 << 32) - 1)
NAMES = st.binary(min_size=1, max_size=40).filter(lambda name: b"/" not in name and b"\0" not in name)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
MOMENTS = st.integers(-62_135_596_800 * 10**9, 253_402_300_799 * 10**9)
NUMBERS = st.integers(0, (1 << 63) - 1)
LOCATIONS = st.builds(BlobLocation, KINDS, IDS, IDS, WORDS, WORDS, WORDS)
NODES = st.builds(
    Node,
    name=NAMES,
    type=st.sampled_from(get_args(NodeType)),
    mode=st.integers(0, 0o7777),
    mtime_ns=MOMENTS,
    atime_ns=MOMENTS,
    ctime_ns=MOMENTS,
    uid=WORDS,
    gid=WORDS,
    user=TEXT,
    group=TEXT,
    inode=NUMBERS,
    device_id=NUMBERS,
    size=NUMBERS,
    links=NUMBERS,
    link_target=st.binary(max_size=40),
    device=NUMBERS,
    xattrs=st.dictionaries(TEXT.map(str.encode), st.binary(max_size=20), max_size=3),
    content=st.none() | st.lists(IDS, max_size=3),
    subtree=st.none() | IDS,
    error=TEXT,
)


@given(st.binary(max_size=2000), st.binary(min_size=16, max_size=16))
def test_sealing(data: bytes, iv: bytes) -> None:
    assert KEY.open(KEY.seal(data, lambda size: iv)) == data


@given(st.binary(max_size=200), st.data())
def test_a_flipped_bit_never_opens(data: bytes, choice: st.DataObject) -> None:
    sealed = bytearray(KEY.seal(data))
    sealed[choice.draw(st.integers(0, len(sealed) - 1))] ^= 1 << choice.draw(st.integers(0, 7))
    with pytest.raises(SnappyError):
        KEY.open(bytes(sealed))


@given(st.binary(max_size=5000), st.integers(1, 6))
def test_compression(data: bytes, level: int) -> None:
    assert decompress(Compressor(level).compress(data), len(data)) == data


@given(st.binary())
@example(b'\xe2\x82\xc3\xa9\xff\\"\n')
def test_names(name: bytes) -> None:
    text = quote(name)
    assert unquote(text) == name
    assert text.isprintable()


@given(MOMENTS)
def test_times(moment: int) -> None:
    assert parse_time(format_time(moment)) == moment


@given(st.lists(NODES, max_size=5, unique_by=lambda node: node.name))
def test_trees(nodes: list[Node]) -> None:
    assert decode_tree(encode_tree(nodes)) == sorted(nodes, key=lambda node: node.name)


@given(NODES, st.booleans())
def test_a_node_that_was_encoded_before_makes_the_same_tree(node: Node, is_common: bool) -> None:
    if is_common:
        node = msgspec.structs.replace(node, type="file", xattrs={}, error="", links=1, link_target=b"")
        node = msgspec.structs.replace(node, device=0, device_id=0, subtree=None)
    assert encode_tree([encode_node(node)]) == encode_tree([node])


@given(st.lists(st.tuples(KINDS, IDS, st.binary(max_size=50), st.integers(0, 1000)), min_size=1, max_size=30))
def test_packs(blobs: list[tuple[BlobType, bytes, bytes, int]]) -> None:
    builder = PackBuilder(PackMemory(1 << 20).take())
    for kind, name, sealed, uncompressed in blobs:
        builder.add(kind, name, sealed, uncompressed)
    pack = builder.finish(KEY)
    found = read_header(KEY, len(pack.data), lambda offset, length: pack.data[offset : offset + length])
    assert [blob.in_pack(pack.id) for blob in found] == list(pack.blobs())
    read = [(blob.kind, blob.id, pack.data[blob.offset :][: blob.length], blob.uncompressed_length) for blob in found]
    assert read == blobs


@given(st.lists(LOCATIONS, max_size=20))
def test_indexes(blobs: list[BlobLocation]) -> None:
    index = MemoryIndex()
    index.add(read_index(encode_index(blobs)))
    assert set(index) == set(blobs)
    assert {copy for blob in blobs for copy in index.locations(blob.kind, blob.id)} == set(blobs)


@settings(max_examples=10)
@given(st.integers(0, 3 << 20), st.integers(0, 1 << 53), st.randoms(use_true_random=False))
def test_chunks(size: int, seed: int, random: Random) -> None:
    data = random.randbytes(size)
    assert b"".join(Chunker(seed).chunks(io.BytesIO(data))) == data


def read_pack(data: bytes) -> list[PackedBlob]:
    return read_header(KEY, len(data), lambda offset, length: data[offset : offset + length])


def sealed_pack(data: bytes) -> list[PackedBlob]:
    header = KEY.seal(data)
    return read_pack(header + len(header).to_bytes(4, "little"))


def read_index(data: bytes) -> list[BlobLocation]:
    table = GrowingTable()
    table.add(decode_index(data).rows(table.pack_number))
    return list(all_locations(table))


PARSERS: list[Callable[[bytes], object]] = [
    KEY.open,
    SealingKey.from_json,
    decompress,
    unwrap,
    decode_header,
    read_pack,
    sealed_pack,
    read_index,
    decode_tree,
    lambda data: decode_json(data, Snapshot, "a snapshot").tree_id,
    lambda data: decode_json(data, KeyFile, "a key"),
    lambda data: unquote(data.decode(errors="replace")),
    lambda data: parse_time(data.decode(errors="replace")),
    lambda data: unwrap(b"\x02\x28\xb5\x2f\xfd" + data),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["nodes", "packs", "blobs", "id", "name", "type", "mode", "mtime"]), inner)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("parse", PARSERS)
@given(data=st.binary(max_size=300))
def test_random_bytes_raise_only_our_errors(parse: Callable[[bytes], object], data: bytes) -> None:
    with suppress(SnappyError):
        parse(data)


@pytest.mark.parametrize("parse", [decode_tree, read_index])
@given(document=JSON)
def test_random_json_raises_only_our_errors(parse: Callable[[bytes], object], document: object) -> None:
    with suppress(SnappyError):
        parse(json.dumps(document).encode())


@given(nodes=st.lists(NODES, min_size=1, max_size=2, unique_by=lambda node: node.name), choice=st.data())
def test_damaged_trees_raise_only_our_errors(nodes: list[Node], choice: st.DataObject) -> None:
    data = bytearray(encode_tree(nodes))
    for _ in range(3):
        data[choice.draw(st.integers(0, len(data) - 1))] = choice.draw(st.integers(0, 255))
    with suppress(SnappyError):
        decode_tree(bytes(data))


@given(st.lists(st.builds(PackedBlob, KINDS, IDS, st.just(0), WORDS, WORDS), max_size=10))
def test_headers(blobs: list[PackedBlob]) -> None:
    placed: list[PackedBlob] = []
    offset = 0
    for blob in blobs:
        placed.append(blob._replace(offset=offset))
        offset += blob.length
    assert decode_header(encode_header(placed)) == placed
