"""Sizes as people write them, in restic's words."""

from __future__ import annotations

import re

from snappy.errors import BadOptions

SIZE = re.compile(r"(\d{1,18})([KMGT]?)\Z", re.IGNORECASE)
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(text: str) -> int:
    """``500M`` in bytes. Raises :class:`BadOptions`."""
    match = SIZE.match(text)
    if match is None:
        raise BadOptions(f"{text!r} is no size", hint="bytes, or for example 500M; the units are K, M, G and T")
    return int(match[1]) * UNITS[match[2].upper()]
