"""Places to keep repositories in, each on a real server that can be killed: what the contract of targets runs on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snappy.targets.opening import open_target
from snappy.targets.policy import PolicyFileSystem
from tests.support import radosgw, sshd, webdav
from tests.support.faults import MortalWeed
from tests.support.fileservers import ALL_RIGHTS
from tests.support.places import Place, in_bucket

CREATES_AT_ONCE = "create only, of many at once"
OBJECT_LOCK = "object lock"
REPLACES_WHOLE = "replace, seen whole"


@dataclass(frozen=True)
class TargetGround:
    """``place`` is empty. ``wrong``: storage options that its server refuses. ``lacks``: what a probe does not find."""

    place: Place
    wrong: dict[str, Any]
    stop: Callable[[], None]
    start: Callable[[], None]
    lacks: frozenset[str] = frozenset()

    def open(self, rights: str = ALL_RIGHTS, **others: Any) -> PolicyFileSystem:
        options = {name: value for name, value in self.place.target.items() if name != "url"}
        return open_target(self.place.target["url"], options | others, rights)


@contextmanager
def on_sshd(folder: Path) -> Iterator[TargetGround]:
    (folder / "sshd").mkdir()
    with sshd.running(folder / "sshd") as server:
        yield TargetGround(server.place(folder / "kept"), server.wrong, server.stop, server.start)


@contextmanager
def on_seaweedfs(folder: Path) -> Iterator[TargetGround]:
    (folder / "weed").mkdir()
    with MortalWeed.running(folder / "weed") as server:
        wrong, lacks = {"secret": "another"}, frozenset({OBJECT_LOCK})
        yield TargetGround(in_bucket(server), wrong, server.stop, server.start, lacks)


@contextmanager
def on_radosgw(_folder: Path) -> Iterator[TargetGround]:
    with radosgw.in_short_folder() as gateway:
        lacks = frozenset({OBJECT_LOCK})
        yield TargetGround(gateway.place(), {"secret": "another"}, gateway.stop, gateway.start, lacks)


@contextmanager
def on_swift(_folder: Path) -> Iterator[TargetGround]:
    with radosgw.in_short_folder() as gateway:
        wrong, lacks = {"password": "another"}, frozenset({CREATES_AT_ONCE})
        yield TargetGround(gateway.swift_place(), wrong, gateway.stop, gateway.start, lacks)


@contextmanager
def on_webdav(folder: Path) -> Iterator[TargetGround]:
    (folder / "webdav").mkdir()
    with webdav.running(folder / "webdav") as server:
        wrong, lacks = {"password": "another"}, frozenset({REPLACES_WHOLE})
        yield TargetGround(server.place(), wrong, server.stop, server.start, lacks)
