"""What a worker says of a file is told to who wants it."""

from __future__ import annotations

from unittest.mock import Mock, call

import pytest

from snappy.repository import member
from snappy.repository.hand import Hand
from snappy.repository.link import LOST, Part


def test_who_is_told_of_blobs_knows_where_they_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a file that is lost in the same round: else its blobs count from its first byte."""
    monkeypatch.setattr(member, "CrewLink", Mock())
    hand, file = Hand(Mock(), 1, Mock()), Mock(size=10)
    hand._wanted[1] = (file, False)
    hand.take_part(Part(1, b"b" * 32, [7], True, LOST, "it cannot be read"))
    assert file.mock_calls == [call.begun(True), call.read(b"b" * 32, 7), call.lost("it cannot be read")]
