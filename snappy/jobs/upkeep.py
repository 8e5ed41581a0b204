"""Commands for the upkeep of what backups left."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta

from snappy.jobs.command import Command

_SUBSET = r"^([0-9]+/[0-9]+|[0-9]+(\.[0-9]+)?%|[0-9]+[KMGTkmgt]?)$"
_NUMBER = re.compile(r"[0-9.]+")


class CheckCommand(Command, frozen=True, kw_only=True):
    """Find out whether a repository is whole."""

    read_data: bool = False
    """Read every pack, and prove all that is in it."""
    read_data_subset: Annotated[str, Meta(pattern=_SUBSET)] | None = None
    """Read a part alone: ``1/7`` is the first of seven, ``10%`` are as many packs at random, ``500M`` about so many
    bytes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.read_data and self.read_data_subset:
            raise ValueError("read_data reads all, so it excludes read_data_subset")
        if any(float(number) == 0 for number in _NUMBER.findall(self.read_data_subset or "")):
            raise ValueError(f"read_data_subset: {self.read_data_subset} is no part of the data")


_SIZE = r"^[0-9]{1,18}[KMGTkmgt]?$"
_UNUSED = r"^([0-9]{1,18}[KMGTkmgt]?|[0-9]{1,2}(\.[0-9]{1,6})?%|unlimited)$"


class PruneCommand(Command, frozen=True, kw_only=True):
    """Delete what no snapshot uses. The fields have the names and meanings of ``restic prune``'s options."""

    dry_run: bool = False
    """Only say what would be done."""
    max_unused: Annotated[str, Meta(pattern=_UNUSED)] = "5%"
    """How much unused data may stay, so that less is stored again: a share of what remains, bytes (``500M``) or
    ``unlimited``."""
    max_repack_size: Annotated[str, Meta(pattern=_SIZE)] | None = None
    """So many bytes are stored again at most."""
    repack_smaller_than: Annotated[str, Meta(pattern=_SIZE)] | None = None
    """Packs smaller than that are joined."""
    repack_cacheable_only: bool = False
    """Only packs of trees are stored again."""
    repack_uncompressed: bool = False
    """Packs with uncompressed data are stored again."""
