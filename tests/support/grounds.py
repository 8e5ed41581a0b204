"""What a soak strikes: a layout of a site, and what runs of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.support.faults import Arena
from tests.support.site import ROLES
from tests.support.storms import Fault

EVERYBODY = (*ROLES, "site1.b")
CORE = {"max_lost_attempts": 100}
"""A job may be struck more often than any that nobody strikes on purpose."""

Programs = Mapping[str, list[str]]


@dataclass(frozen=True)
class Ground:
    """A running layout. What is backed up arrives in the files below ``stored`` whose names end with ``suffix``;
    ``rig`` is what else the layout's faults strike."""

    site: Arena
    stored: Path
    suffix: str = ""
    rig: object = None


@dataclass(frozen=True)
class Layout:
    """``make`` runs one in a folder, where ``programs`` stand in for ``snappy``; ``possible`` says whether this
    machine can."""

    name: str
    faults: tuple[Fault, ...]
    make: Callable[[Path, Programs], AbstractContextManager[Ground]]
    possible: Callable[[], object] = lambda: True
    wants: str = ""
