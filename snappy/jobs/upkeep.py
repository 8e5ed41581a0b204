"""Commands for the upkeep of what backups left: check, repair and drill it, forget what is not wanted any more, copy
it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from msgspec import Meta

from snappy.jobs.command import Command, Name

_SUBSET = r"^((next|[0-9]+)/[0-9]+|[0-9]+(\.[0-9]+)?%|[0-9]+[KMGTkmgt]?)$"
_NUMBER = re.compile(r"[0-9.]+")


class CheckCommand(Command, frozen=True, kw_only=True):
    """Find out whether a repository is whole."""

    read_data: bool = False
    """Read every pack, and prove all that is in it."""
    read_data_subset: Annotated[str, Meta(pattern=_SUBSET)] | None = None
    """Read a part alone: ``1/7`` is the first of seven, ``next/7`` the one that was read longest ago, ``10%`` are as
    many packs at random, ``500M`` about so many bytes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.read_data and self.read_data_subset:
            raise ValueError("read_data reads all, so it excludes read_data_subset")
        if any(float(number) == 0 for number in _NUMBER.findall(self.read_data_subset or "")):
            raise ValueError(f"read_data_subset: {self.read_data_subset} is no part of the data")


_SIZE = r"^[0-9]{1,18}[KMGTkmgt]?$"
_SAMPLE = r"^([0-9]{1,3}(\.[0-9]{1,6})?%|[0-9]{1,18}[KMGTkmgt]?)$"


class DrillCommand(Command, frozen=True, kw_only=True):
    """Restore a snapshot, or some of its files, into a scratch folder of the source service, compare what is there with
    what was backed up, and remove it: the repository can be restored, and it takes so long."""

    snapshot: str = "latest"
    """An id, its first letters, or ``latest``."""
    host: str | None = None
    """With ``latest``: the newest of this host."""
    paths: list[str] = []
    """With ``latest``: the newest of these paths."""
    sample: Annotated[str, Meta(pattern=_SAMPLE)] | None = None
    """Files at random, large ones likelier by their size: ``5%`` are so many that they hold that share of all bytes,
    ``1G`` as many as hold no more than that; by default all there is."""
    seed: Annotated[int, Meta(ge=0, lt=1 << 32)] | None = None
    """The same draws the same sample of a snapshot again; by default another one each time."""
    program: Name | None = None
    """Which of the source service's drill programs is run on what was restored."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed is not None and self.sample is None:
            raise ValueError("seed says which files are in a sample, and there is no sample")
        if self.sample is not None and not float(_NUMBER.findall(self.sample)[0]):
            raise ValueError(f"sample: {self.sample} is no part of the data")


_UNUSED = r"^([0-9]{1,18}[KMGTkmgt]?|[0-9]{1,2}(\.[0-9]{1,6})?%|unlimited)$"


class RepackingCommand(Command, frozen=True, kw_only=True):
    """How much a prune stores again, so that the rest of its packs can be deleted. The fields have the names and
    meanings of ``restic prune``'s options."""

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


class PruneCommand(RepackingCommand, frozen=True, kw_only=True):
    """Delete what no snapshot uses."""

    dry_run: bool = False
    """Only say what would be done."""


class RepairCommand(Command, frozen=True, kw_only=True):
    """Save what can be saved of a damaged repository. What is of no use any more is removed, if the submitter may have
    anything deleted there."""

    what: Literal["index", "packs", "snapshots"]
    """In this order, if all has to be repaired. ``index``: list what packs hold. ``packs``: save the whole blobs of
    damaged packs in new ones. ``snapshots``: make snapshots anew without what is lost."""
    ids: Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=1000)] = []
    """Of packs, or of snapshots, whose first letters suffice; by default all that are damaged."""
    read_all_packs: bool = False
    """For ``index``: believe no index file, but the header of every pack."""
    forget: bool = False
    """For ``snapshots``: remove those that were made anew, and of ``ids`` those that cannot be read."""
    dry_run: bool = False
    """Only say what would be done."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, parts in (
            ("ids", ("packs", "snapshots")),
            ("read_all_packs", ("index",)),
            ("forget", ("snapshots",)),
        ):
            if getattr(self, field) and self.what not in parts:
                raise ValueError(f"{field} says nothing to a repair of {self.what}")


KeyId = Annotated[str, Meta(pattern=r"^[0-9a-f]{8,64}$", description="eight of its first letters at least")]
Label = Annotated[str, Meta(max_length=64)]


class KeyCommand(Command, frozen=True, kw_only=True):
    """List the keys of a repository, or make it open with other passwords: what these are, the source service knows."""

    action: Literal["list", "add", "remove", "change"]
    """``change`` adds a key, sees that it opens the repository, and removes the one that ``key`` opened."""
    new_key: Name | None = None
    """For ``add`` and ``change``: which of the source service's passwords shall open the repository."""
    id: KeyId | None = None
    """For ``remove``: never the one that ``key`` opens."""
    user: Label | None = None
    """For ``add`` and ``change``: who made the key, by its file; by default the source service's user."""
    host: Label | None = None
    """Likewise its host."""

    def __post_init__(self) -> None:
        super().__post_init__()
        makes = self.action in ("add", "change")
        if makes != bool(self.new_key):
            raise ValueError(f"new_key is {'missing' if makes else 'nothing'} to the action {self.action}")
        if (self.action == "remove") != bool(self.id):
            raise ValueError(f"id is {'missing' if self.action == 'remove' else 'nothing'} to the action {self.action}")
        if (self.user or self.host) and not makes:
            raise ValueError(f"user and host are nothing to the action {self.action}")


Count = Annotated[int, Meta(ge=0)] | Literal["unlimited"]
Span = Annotated[str, Meta(pattern=r"^([0-9]{1,6}[ymdh])*$", description="years, months, days, hours: 1y5m7d2h")]
SnapshotId = Annotated[str, Meta(pattern=r"^[0-9a-f]{8,64}$", description="eight of its first letters at least")]
_GROUP_BY = r"^((hosts?|paths?|tags?)?(,(hosts?|paths?|tags?)?)*)$"
_ZERO_SPAN = re.compile(r"(0+[ymdh])*\Z")


class ForgetCommand(RepackingCommand, frozen=True, kw_only=True):
    """Remove snapshots, by a policy or by their ids, with the meanings of restic's ``forget``. What they alone need
    stays until a prune."""

    snapshots: list[SnapshotId] = []
    """These are removed, and there is no policy. Not ``latest``: an attempt after one that was lost would find another
    one."""
    keep_last: Count = 0
    keep_hourly: Count = 0
    """Of the newest so many hours that have a snapshot, the newest one each. So for days, weeks, months and years."""
    keep_daily: Count = 0
    keep_weekly: Count = 0
    keep_monthly: Count = 0
    keep_yearly: Count = 0
    keep_within: Span = ""
    """All that are no older than that, counted back from the newest of their group."""
    keep_within_hourly: Span = ""
    """One for each hour that has a snapshot within that time. So for days, weeks, months and years."""
    keep_within_daily: Span = ""
    keep_within_weekly: Span = ""
    keep_within_monthly: Span = ""
    keep_within_yearly: Span = ""
    keep_tags: list[str] = []
    """Each of them tags with commas between: all snapshots that have all tags of any of them are kept. An empty one
    means those without tags."""
    group_by: Annotated[str, Meta(pattern=_GROUP_BY)] = "host,paths"
    """The policy is applied to each group by itself; empty: to all snapshots together."""
    hosts: list[str] = []
    """Only snapshots of one of these hosts are looked at."""
    tags: list[str] = []
    """Only those with all tags of one of these lists, which have commas between."""
    paths: list[str] = []
    """Only those with all of these paths."""
    unsafe_allow_remove_all: bool = False
    """Without a policy, remove all snapshots that pass the filters, of which there must be one."""
    prune: bool = False
    """Prune too, if any snapshot is removed."""
    dry_run: bool = False
    """Say what would be removed, and why the rest would not."""

    def __post_init__(self) -> None:
        super().__post_init__()
        filtered, by_policy = bool(self.hosts or self.tags or self.paths), self._has_policy()
        if self.snapshots and (by_policy or filtered):
            raise ValueError("snapshots that are named are removed whatever a policy or filter says: give one of them")
        if not self.snapshots and not by_policy and not self.unsafe_allow_remove_all:
            raise ValueError("no policy, so no snapshot is removed: give keep_last, keep_daily or the like")
        if not self.snapshots and not by_policy and not filtered:
            raise ValueError("unsafe_allow_remove_all without a policy needs hosts, tags or paths")

    def _has_policy(self) -> bool:
        values = {name: getattr(self, name) for name in self.__struct_fields__ if name.startswith("keep_")}
        spans = [value for name, value in values.items() if name.startswith("keep_within")]
        return any(not _ZERO_SPAN.match(span) for span in spans) or any(
            value for name, value in values.items() if not name.startswith("keep_within")
        )


class CopyCommand(Command, frozen=True, kw_only=True):
    """Copy snapshots out of the repository of another target, ``origin``, into that of ``target``.
    The source service holds both keys; what is missing is sealed anew, and nothing else is sent."""

    origin: Name
    """The target that keeps the snapshots; nothing is written there, not even a lock."""
    origin_key: Name = "default"
    """Which of the source service's repository passwords opens it."""
    snapshots: Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=1000)] = []
    """Ids, first letters of some, or ``latest``; by default all that pass the filters."""
    hosts: list[str] = []
    """Only snapshots of one of these hosts."""
    tags: list[str] = []
    """Only those with all tags of one of these lists, which have commas between."""
    paths: list[str] = []
    """Only those with all of these paths."""
    init: bool = False
    """Make the repository of ``target`` if it is not there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.origin == self.target:
            raise ValueError("origin and target are one: a copy goes to another target")
        if self.snapshots and (self.hosts or self.tags or self.paths):
            raise ValueError("snapshots that are named are copied whatever a filter says: give one of them")
