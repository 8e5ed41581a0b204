"""Walks trees level by level, those of a pack read together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from snappy.repository.format import BlobId, BlobLocation, PackId

_READERS = 4
_AT_ONCE = 8192
"""Trees that are read together, a pack's few reads each."""


def walk_levels(
    roots: Iterable[BlobId],
    new: Callable[[Iterable[BlobId]], list[BlobId]],
    located: Callable[[Iterable[BlobId]], Mapping[PackId, list[BlobLocation]]],
    read: Callable[[PackId, list[BlobLocation]], list[BlobId]],
) -> None:
    """From ``roots`` to the ends. ``new`` picks the trees that were not met before, ``located`` says where they lie,
    and ``read``, in several threads, gives the trees below some of a pack. Raises what they raise."""
    level = new(roots)
    with ThreadPoolExecutor(_READERS, thread_name_prefix="trees") as pool:
        while level:
            below: list[BlobId] = []
            remaining = iter(level)
            while together := list(islice(remaining, _AT_ONCE)):
                for found in pool.map(lambda of_pack: read(*of_pack), located(together).items()):
                    below += new(found)
            level = below
