"""Which snapshots a policy keeps, and why: restic's ``forget``, as a pure function of snapshots, policy and time.

Snapshots are put into groups, and each group is gone through from its newest to its oldest. What is counted are hours,
days, ISO weeks, months and years, by the clock of the time zone that each snapshot's time was written in. Sources:
restic's manual, "Removing backup snapshots", and its ``internal/data/snapshot_policy.go``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, tzinfo
from typing import NamedTuple, Protocol, Self

import msgspec

from snappy.errors import LastSnapshot, UsageError
from snappy.repository.snapshots import Snapshot
from snappy.repository.spans import Span

UNLIMITED = -1
_GROUPERS = {"host": "host", "hosts": "host", "path": "paths", "paths": "paths", "tag": "tags", "tags": "tags"}

Period = Callable[[datetime, int], int | tuple[int, ...]]
"""The same for two snapshots of one period; the second argument is the snapshot's place in its group."""

PERIODS: dict[str, Period] = {
    "last": lambda _time, place: place,
    "hourly": lambda time, _place: (time.year, time.month, time.day, time.hour),
    "daily": lambda time, _place: (time.year, time.month, time.day),
    "weekly": lambda time, _place: time.isocalendar()[:2],
    "monthly": lambda time, _place: (time.year, time.month),
    "yearly": lambda time, _place: time.year,
}

TagList = tuple[str, ...]
"""Tags that a snapshot must have all; an empty text among them is fulfilled by one without any."""


def tag_list(text: str) -> TagList:
    """Tags with commas between."""
    return tuple(tag.strip() for tag in text.split(","))


def has_tags(snapshot: Snapshot, wanted: TagList) -> bool:
    """Whether the snapshot has them all, as restic sees it."""
    tags = snapshot.tags or ()
    for tag in wanted:
        if not tag and not tags:
            return True
        if tag not in tags:
            return False
    return True


class Filters(NamedTuple):
    """Which snapshots are looked at: those of any of the hosts, with any of the lists of tags, with all of the paths;
    what is empty asks for nothing."""

    hosts: Sequence[str] = ()
    tags: Sequence[TagList] = ()
    paths: Sequence[str] = ()

    def let(self, snapshot: Snapshot) -> bool:
        """Whether they let it through."""
        return (
            (not self.hosts or snapshot.hostname in self.hosts)
            and (not self.tags or any(has_tags(snapshot, tags) for tags in self.tags))
            and set(self.paths) <= set(snapshot.paths or ())
        )


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept: the newest snapshot of each of so many periods (by a name of ``PERIODS``, or UNLIMITED), all
    ``within`` a time before the newest, one for each period within a time, all with the tags of any of the lists."""

    counts: Mapping[str, int] = {}
    within: Span = Span()
    periods_within: Mapping[str, Span] = {}
    tags: Sequence[TagList] = ()

    @property
    def is_empty(self) -> bool:
        """Nothing is kept by it."""
        spans = (self.within, *self.periods_within.values())
        return not (self.tags or any(self.counts.values()) or any(map(any, spans)))


class Key(NamedTuple):
    """What the snapshots of a group have in common; None for what they are not grouped by."""

    host: str = ""
    paths: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None

    def __str__(self) -> str:
        parts = (("host", self.host), ("path", self.paths), ("tags", self.tags))
        return ", ".join(f"{name} {_listed(value)}" for name, value in parts if value)


class Grouping(NamedTuple):
    host: bool = True
    paths: bool = True
    tags: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """``host,paths``, in any order; empty for one group of all. Raises UsageError."""
        words = {word for word in text.split(",") if word}
        if unknown := words - set(_GROUPERS):
            raise UsageError(f"snapshots are not grouped by {min(unknown)!r}", hint="by host, paths and tags")
        chosen = {_GROUPERS[word] for word in words}
        return cls(*(name in chosen for name in cls._fields))

    def key(self, snapshot: Snapshot) -> Key:
        return Key(
            snapshot.hostname if self.host else "",
            _sorted(snapshot.paths) if self.paths else None,
            _sorted(snapshot.tags) if self.tags else None,
        )


class Kept(NamedTuple):
    """A snapshot that stays, and each reason why, in restic's words."""

    snapshot: Snapshot
    reasons: list[str]


class Group(NamedTuple):
    """What a policy makes of one group; the newest first."""

    key: Key
    keep: list[Kept]
    remove: list[Snapshot]


def grouped(
    snapshots: Iterable[Snapshot], policy: Policy, grouping: Grouping, *, now: datetime, local: tzinfo | None = None
) -> list[Group]:
    """The groups, in the order of ``snapshots``, with what ``policy`` keeps and removes of each.

    A snapshot later than ``now`` is not one that others are measured from. ``local`` is the time zone that counting
    back is done in where a snapshot comes from it, None for this machine's. Raises LastSnapshot where a policy, other
    than an empty one, would leave nothing of a group.
    """
    members: dict[Key, list[Snapshot]] = {}
    for snapshot in snapshots:
        members.setdefault(grouping.key(snapshot), []).append(snapshot)
    groups = [_applied(key, found, policy, now, local) for key, found in members.items()]
    for group in groups:
        if not group.keep and not policy.is_empty:
            raise LastSnapshot(f"the policy would remove all snapshots of the group {str(group.key)!r}")
    return groups


def _applied(key: Key, found: list[Snapshot], policy: Policy, now: datetime, local: tzinfo | None) -> Group:
    snapshots = sorted(found, key=lambda snapshot: snapshot.time, reverse=True)
    newest = next((snapshot.time for snapshot in snapshots if snapshot.time < now), None)
    rules = list(_rules(policy, newest, local))
    group = Group(key, [], [])
    for place, snapshot in enumerate(snapshots):
        oldest = place == len(snapshots) - 1
        if reasons := [reason for rule in rules if (reason := rule(snapshot, place, oldest))]:
            group.keep.append(Kept(snapshot, reasons))
        else:
            group.remove.append(snapshot)
    return group


class _Rule(Protocol):
    """The reason for which it keeps a snapshot, if it does. Asked about each in turn, and whether it is the last."""

    def __call__(self, snapshot: Snapshot, place: int, oldest: bool) -> str: ...


def _rules(policy: Policy, newest: datetime | None, local: tzinfo | None) -> Iterator[_Rule]:
    """In the order in which restic gives reasons."""
    yield from (_Tagged(tags) for tags in policy.tags)
    if any(policy.within):
        yield _Since(policy.within, newest, local)
    yield from (_Counted(name, policy.counts.get(name, 0)) for name in PERIODS)
    for name, span in policy.periods_within.items():
        if any(span):
            yield _EachSince(name, _Since(span, newest, local))


class _Tagged:
    def __init__(self, tags: TagList) -> None:
        self._tags = tags

    def __call__(self, snapshot: Snapshot, place: int, oldest: bool) -> str:
        return f"has tags {_listed(self._tags)}" if has_tags(snapshot, self._tags) else ""


class _Since:
    """Younger than a time before the newest of the group. Where there is none, or where the calendar ends before, that
    is all of them."""

    def __init__(self, span: Span, newest: datetime | None, local: tzinfo | None) -> None:
        self.span = span
        self._start = span.before(newest, local) if newest else None

    def __call__(self, snapshot: Snapshot, place: int, oldest: bool) -> str:
        return f"within {self.span}" if self._start is None or snapshot.time > self._start else ""


class _Periods:
    """Tells the first snapshot of each period; and the oldest of all, which need not be the first of its own."""

    def __init__(self, name: str) -> None:
        self._name, self._period = name, PERIODS[name]
        self._before: object = None

    def first(self, snapshot: Snapshot, place: int, oldest: bool) -> str:
        value = self._period(snapshot.time, place)
        is_first = value != self._before
        self._before = value
        if is_first:
            return self._name
        return f"oldest {self._name}" if oldest else ""


class _Counted:
    def __init__(self, name: str, count: int) -> None:
        self._periods, self._left = _Periods(name), count

    def __call__(self, snapshot: Snapshot, place: int, oldest: bool) -> str:
        if not self._left or not (word := self._periods.first(snapshot, place, oldest)):
            return ""
        self._left -= self._left > 0
        return f"{word} snapshot"


class _EachSince:
    def __init__(self, name: str, since: _Since) -> None:
        self._periods, self._since = _Periods(name), since

    def __call__(self, snapshot: Snapshot, place: int, oldest: bool) -> str:
        within = self._since(snapshot, place, oldest)
        word = self._periods.first(snapshot, place, oldest) if within else ""
        return f"{word} {within}" if word else ""


def _sorted(texts: list[str] | None) -> tuple[str, ...] | None:
    return None if texts is None else tuple(sorted(texts))


def _listed(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else f"[{', '.join(value)}]"
