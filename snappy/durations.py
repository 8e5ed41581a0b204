"""How people write a length of time: ``6h``, ``90m``, ``1d12h``."""

from __future__ import annotations

import re

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:[0-9]{1,9}[dhms])+\Z")


def seconds(text: str) -> int:
    """So many. Raises ValueError for what is no length of time."""
    if not _DURATION.match(text):
        raise ValueError(f"{text!r} is no time; for example 6h, 90m or 1d12h")
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9]+)([dhms])", text))
