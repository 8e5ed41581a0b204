"""How lengths of time are written."""

from __future__ import annotations

import pytest

from snappy.durations import seconds


@pytest.mark.parametrize(("text", "wanted"), [("1s", 1), ("26h", 93600), ("1d12h", 129600), ("1h30m5s", 5405)])
def test_times(text: str, wanted: int) -> None:
    assert seconds(text) == wanted


@pytest.mark.parametrize("text", ["", "6", "h", "6 h", "-1h", "1.5h", "6w", "٣h"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        seconds(text)
