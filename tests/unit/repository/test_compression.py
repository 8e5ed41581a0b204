from __future__ import annotations

import pytest
import zstandard

from snappy.errors import Damaged
from snappy.repository import compression
from snappy.repository.compression import Compressor, decompress

DATA = b"again and " * 1000


def frame_of_unknown_size(data: bytes) -> bytes:
    compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return compressor.compress(data) + compressor.flush()


@pytest.mark.parametrize("level", [1, 3, 19])
def test_round_trip(level: int) -> None:
    frame = Compressor(level).compress(DATA)
    assert len(frame) < len(DATA) / 10
    assert decompress(frame) == decompress(frame, len(DATA)) == DATA


def test_a_frame_that_does_not_state_its_size() -> None:
    frame = frame_of_unknown_size(DATA)
    assert zstandard.frame_content_size(frame) < 0
    assert decompress(frame) == decompress(frame, len(DATA)) == DATA


@pytest.mark.parametrize("make", [Compressor().compress, frame_of_unknown_size])
@pytest.mark.parametrize("size", [0, len(DATA) - 1, len(DATA) + 1])
def test_another_size_than_expected_is_damage(make: object, size: int) -> None:
    assert callable(make)
    with pytest.raises(Damaged):
        decompress(make(DATA), size)


def test_a_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "LARGEST_DOCUMENT", 1000)
    for frame in (Compressor().compress(bytes(1001)), frame_of_unknown_size(bytes(1001))):
        with pytest.raises(Damaged):
            decompress(frame)


@pytest.mark.parametrize("frame", [b"", b"no frame", Compressor().compress(DATA)[:-3]])
def test_damage(frame: bytes) -> None:
    with pytest.raises(Damaged):
        decompress(frame)
