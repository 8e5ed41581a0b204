"""What is measured, and what is aimed at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WORKS = ("first", "unchanged", "changed", "restore", "restore over", "check")
"""In the order in which a repository sees them."""
BACKUPS = ("first", "unchanged", "changed")
TITLES = {
    "first": "first backup",
    "unchanged": "unchanged backup",
    "changed": "changed backup",
    "restore": "restore to an empty place",
    "restore over": "restore over an identical tree",
    "check": "read-data check",
}
LOCAL, S3 = "local", "s3"
TARGETS = (LOCAL, S3)
CORPORA = ("tree", "tiny", "noise", "image")
DUPLICATES = (0, 2, 100)
"""Percent of the content that the repository has before the first backup, from another host."""
CPU_AIM = 1.0
STORED_AIM = 0.10
"""Repository sizes lie within that of each other."""
MEMORY_AIMS = {"tree": 400_000_000, "million": 700_000_000}
"""Bytes, all processes together, at the default number of workers."""
WALL_AIMS = {
    ("tree", LOCAL, "first"): 0.5,
    ("tree", LOCAL, "unchanged"): 0.5,
    ("tree", LOCAL, "changed"): 0.5,
    ("tree", LOCAL, "restore"): 0.8,
    ("tree", S3, "first"): 0.6,
    ("tree", S3, "restore"): 0.6,
    ("tiny", LOCAL, "first"): 0.7,
    ("tiny", LOCAL, "unchanged"): 0.5,
    ("tiny", LOCAL, "restore"): 0.8,
    ("noise", LOCAL, "first"): 0.6,
    ("noise", LOCAL, "restore"): 0.6,
    ("image", LOCAL, "first"): 0.6,
    ("image", LOCAL, "restore"): 0.6,
    **{(corpus, LOCAL, "check"): 0.7 for corpus in CORPORA},
}
"""Snappy's wall time as a part of restic's."""
UNCHANGED_MILLION_SECONDS = 20.0
"""Snappy's wall time for a million files of which none has changed."""


@dataclass(frozen=True)
class Case:
    """One corpus at one target: its works are done one after another on one repository a side, in each pair."""

    corpus: str
    target: str = LOCAL
    duplicates: int = 0
    scale: float = 1.0
    works: Sequence[str] = WORKS

    @property
    def name(self) -> str:
        parts = [self.corpus, f"x{self.scale:g}" if self.scale != 1 else "", self.target]
        parts.append(f"{self.duplicates}% known" if self.duplicates else "")
        return " ".join(filter(None, parts))

    def aim(self, work: str) -> float | None:
        """Only of what is whole, and new to its repository."""
        return None if self.duplicates else WALL_AIMS.get((self.corpus, self.target, work))


def cases(corpus: str, targets: Sequence[str], duplicates: Sequence[int], works: Sequence[str]) -> Iterator[Case]:
    """All that is to be measured of one corpus, before it is scaled."""
    for target in targets:
        for share in duplicates:
            possible = BACKUPS if share else WORKS
            single = corpus in ("noise", "image")
            chosen = tuple(work for work in possible if work in works and not (single and work == "changed"))
            yield Case(corpus, target, share, 1.0, chosen)


GROWTH = (
    *(Case("million", scale=scale, works=("first", "unchanged")) for scale in (0.01, 0.1, 1.0)),
    *(Case("noise", scale=scale, works=("first",)) for scale in (0.5, 2.0, 8.0)),
)
"""10,000, 100,000 and 1,000,000 files; 1, 4 and 16 GiB."""
