"""Several sources in one backup: the order of what is done to them, whoever fails, and of what they yield."""

from __future__ import annotations

import io
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given
from hypothesis import strategies as st

from snappy.config import Allow
from snappy.errors import BadOptions, Denied, InvalidCommand, JobCancelled, SourceError
from snappy.jobs.kinds import BackupCommand, Part, parse_command
from snappy.jobs.messages import Beat
from snappy.jobs.protection import of_backup
from snappy.jobs.vetting import check_plugin
from snappy.repository.entries import Entry, Exported, Node, Siblings, each_entry
from snappy.repository.repo import Repository
from snappy.repository.store import Store
from snappy.sources import backups
from snappy.sources.allow import check
from snappy.sources.made_up import folders_above, stream
from snappy.sources.plugins.null import NullSource
from snappy.sources.site import NOWHERE
from snappy.sources.tasks import asked, prepare
from snappy.sources.together import Together, merged
from tests.support.plugin_jobs import NAMES, Jobs

MIB = 1 << 20


class Fake:
    """A source that tells what is done to it, and fails where it is told to."""

    name, Options, RestoreOptions = "fake", NullSource.Options, NullSource.RestoreOptions

    def __init__(self, told: list[str], name: str, fails: str = "", path: bytes = b"") -> None:
        self._told, self._name, self._fails = told, name, fails
        self._path = path or os.fsencode(f"/{name}/file")

    def _tell(self, word: str) -> None:
        self._told.append(f"{word} {self._name}")
        if word == self._fails:
            raise SourceError(f"{word} {self._name} failed")

    def claims(self) -> list[str]:
        return [f"fake://{self._name}"]

    def snap(self) -> Any:
        return self._snap()

    @asynccontextmanager
    async def _snap(self) -> AsyncIterator[str]:
        self._tell("freeze")
        try:
            yield self._name
        finally:
            self._tell("thaw")

    def export(self, frozen: str) -> Iterator[Exported]:
        assert frozen == self._name
        yield from folders_above(self._path)
        yield stream(self._path, self._read)

    def _read(self) -> io.BytesIO:
        self._tell("read")
        return io.BytesIO(b"content")

    def interrupt(self) -> None:
        self._tell("interrupt")


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path, "files", {})


async def back_up(jobs: Jobs, monkeypatch: pytest.MonkeyPatch, *sources: Any) -> Any:
    left = iter(sources)
    monkeypatch.setattr(backups, "_made", lambda part, site: next(left))
    return await jobs.done(BackupCommand(**NAMES, sources=[Part("fake")] * len(sources), init=True))


FROZEN = ["freeze b", "freeze a"]
READ = ["read a", "read b"]
THAWED = ["thaw a", "thaw b"]


@pytest.mark.parametrize(
    ("fails", "told"),
    [
        ({}, [*FROZEN, *READ, *THAWED]),
        ({"b": "freeze"}, ["freeze b"]),
        ({"a": "freeze"}, [*FROZEN, "thaw b"]),
        ({"a": "read"}, [*FROZEN, "read a", *THAWED]),
        ({"b": "read"}, [*FROZEN, *READ, *THAWED]),
        ({"a": "thaw"}, [*FROZEN, *READ, *THAWED]),
        ({"a": "read", "b": "thaw"}, [*FROZEN, "read a", *THAWED]),
    ],
)
async def test_all_freeze_then_all_are_read_then_all_thaw_whoever_fails(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, fails: dict[str, str], told: list[str]
) -> None:
    """Frozen in the order of the command, read in that of the paths."""
    heard: list[str] = []
    sources = [Fake(heard, name, fails.get(name, "")) for name in ("b", "a")]
    if fails:
        with pytest.raises(SourceError, match=" failed"):
            await back_up(jobs, monkeypatch, *sources)
    else:
        assert (await back_up(jobs, monkeypatch, *sources)).paths == ["fake://a", "fake://b"]
    assert heard == told


async def test_two_that_have_the_same_file(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    sources = [Fake(heard, name, path=b"/same/file") for name in ("a", "b")]
    with pytest.raises(SourceError, match="two sources have /same/file") as raised:
        await back_up(jobs, monkeypatch, *sources)
    assert raised.value.hint
    assert heard[-2:] == ["thaw b", "thaw a"]


def test_all_that_may_wait_are_interrupted() -> None:
    heard: list[str] = []
    sources: list[Any] = [Fake(heard, "a"), NullSource(NullSource.Options(size=1), NOWHERE), Fake(heard, "b")]
    Together(sources).interrupt()
    assert heard == ["interrupt a", "interrupt b"]


async def test_files_and_a_database_in_one_snapshot(jobs: Jobs, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(100):
        (data / f"file-{number:02}").write_text(str(number))
    with closing(sqlite3.connect(data / "file-50.db")) as database, database:
        database.execute("create table t (x)")
    parts = [
        Part("files", {"paths": [str(data)], "exclude": ["*.db"]}),
        Part("sqlite", {"paths": [str(data / "*.db")]}),
        Part("null", {"size": 1000}),
    ]
    command = BackupCommand(**NAMES, sources=parts, init=True)
    first, second = [await jobs.done(command) for _ in range(2)]
    assert first.files == 102
    assert first.warnings == []
    assert second.files_unmodified == 100
    with Repository.open(Store(LocalFileSystem(), str(jobs.repository)), "right") as repository:
        newest = repository.find_snapshot("latest")
        assert newest.parent == first.snapshot
        assert newest.excludes == ["*.db"]
        assert newest.paths == prepare("backup", command, jobs.site).asks.reads
    await jobs.restore(to=str(tmp_path / "back"))
    there = tmp_path / "back" / data.relative_to("/")
    assert sorted(os.listdir(there)) == sorted(os.listdir(data))
    with closing(sqlite3.connect(there / "file-50.db")) as database:
        assert database.execute("select count(*) from t").fetchall() == [(0,)]


def test_the_rules_hold_for_each(tmp_path: Path) -> None:
    command = BackupCommand(**NAMES, sources=[Part("null", {"size": 1}), Part("files", {"paths": [str(tmp_path)]})])
    asks = prepare("backup", command).asks
    assert str(tmp_path) in asks.reads
    assert len(asks.reads) == 2
    assert (asks.plugin, asks.beside) == ("null", ["files"])
    with pytest.raises(Denied, match="'files'"):
        check(asked("backup", command), Allow(kinds=["backup"], plugins=["null"], targets=["vault"]), "alice")


def test_a_command_names_sources_or_a_plugin() -> None:
    with pytest.raises(InvalidCommand, match="sources take the place"):
        parse_command(
            "backup", b'{"source": "s", "target": "t", "options": {"paths": ["/a"]}, "sources": [{"plugin": "null"}]}'
        )
    command = BackupCommand(**NAMES, sources=[Part("null"), Part("files", {"path": "/a"})])
    known = {"backup": {"type": "object", "additionalProperties": False, "properties": {"paths": {}}}}
    beat = Beat(service="site", replica="r", role="source", version="1", plugins={"null": {}, "files": known})
    with pytest.raises(BadOptions, match=r"no option 'path' - at `\$\.sources\[1\]\.options`"):
        check_plugin("backup", command, [beat])


def test_what_is_protected_is_known_by_all_of_them() -> None:
    one, other = (
        of_backup({**NAMES, "sources": [{"plugin": "null"}, {"plugin": plugin, "options": {"paths": ["/a"]}}]}, 0.0)
        for plugin in ("files", "sqlite")
    )
    assert one.id != other.id
    assert one.plugin == "null+files"


# ---- merging ---------------------------------------------------------------------------------------------------------

NAME = st.sampled_from([b"a", b"a.b", b"b", b"c", b"-"])
FILES = st.sets(st.lists(NAME, min_size=1, max_size=3).map(tuple), max_size=12)


def walk(files: set[tuple[bytes, ...]], together: int) -> Iterator[Exported]:
    """As a tree is walked; so many files beside each other are yielded in one."""
    waiting: list[tuple[bytes, Any]] = []
    folders: set[tuple[bytes, ...]] = set()

    def flush(folder: tuple[bytes, ...]) -> Iterator[Exported]:
        if waiting:
            above = b"/" + b"/".join(folder)
            prefix = above if above == b"/" else above + b"/"
            looks = list(waiting)
            waiting.clear()
            yield Siblings(above, looks, lambda name, _: Entry(path=prefix + name, node=Node(name=name, type="file")))

    here: tuple[bytes, ...] = ()
    for file in sorted(files):
        for depth in range(1, len(file)):
            if file[:depth] not in folders:
                yield from flush(here)
                folders.add(file[:depth])
                yield Entry(path=b"/" + b"/".join(file[:depth]), node=Node(name=file[depth - 1], type="dir"))
        if file[:-1] != here or len(waiting) >= together:
            yield from flush(here)
        here = file[:-1]
        waiting.append((file[-1], None))
    yield from flush(here)


def without_clashes(files: set[tuple[bytes, ...]], taken: set[tuple[bytes, ...]]) -> set[tuple[bytes, ...]]:
    """Those that are neither taken nor lie in a file, nor are a folder of others."""
    every = files | taken
    inner = {file[:depth] for file in every for depth in range(1, len(file))}
    return {file for file in files - taken if file not in inner}


@given(FILES, FILES, st.integers(1, 5))
def test_what_is_merged_comes_in_the_order_of_one_walk(
    one: set[tuple[bytes, ...]], other: set[tuple[bytes, ...]], together: int
) -> None:
    one, other = without_clashes(one, set()), without_clashes(other, one)
    one = without_clashes(one, other)
    expected = [entry.path for entry in each_entry(walk(one | other, 1))]
    found = each_entry(merged([walk(one, together), walk(other, together)]))
    assert [entry.path for entry in found] == expected


@pytest.mark.parametrize("names", ["a", "ab"])
async def test_what_is_given_up_has_no_folder_open(jobs: Jobs, tmp_path: Path, names: str) -> None:
    for folder in [tmp_path / name / str(number) for name in names for number in range(40)]:
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(os.urandom(MIB // 2))
    parts = [Part("files", {"paths": [str(tmp_path / name)]}) for name in names]
    with pytest.raises(JobCancelled) as caught:  # which refers to all that was at work
        await jobs.done(BackupCommand(**NAMES, sources=parts, init=True), end_after=MIB)
    held = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert [place for place in held if place.startswith(str(tmp_path))] == [], caught
