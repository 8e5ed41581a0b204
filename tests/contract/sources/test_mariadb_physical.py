"""A whole MariaDB server, some of whose tables are altered while it is backed up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from snappy.repository.entries import Entry
from snappy.sources.plugins.mariadb_folder import FolderSink
from snappy.sources.plugins.mariadb_physical import PhysicalOptions, PhysicalSource
from snappy.sources.plugins.mariadb_server import Server
from snappy.sources.site import Site
from tests.support.mariadb import MariaDb

pytestmark = pytest.mark.mariadb

MIB = 1 << 20
PLUGIN = "mariadb-physical"
RESTLESS = (
    "CREATE DATABASE restless",
    "CREATE TABLE restless.old ENGINE=Aria AS SELECT 7 AS id",
    "CREATE TABLE restless.gone ENGINE=Aria AS SELECT 8 AS id",
    "CREATE TABLE restless.large ENGINE=MyISAM AS SELECT RANDOM_BYTES(60000) AS noise FROM restless.seq_1_to_200",
)
"""The first two are read before the last, while which they may still be altered."""


@pytest.mark.long
async def test_what_is_renamed_and_removed_meanwhile_is_as_it_was_in_the_end(tmp_path: Path) -> None:
    with MariaDb.running() as server:
        server.do(*RESTLESS)
        site = Site("site", {PLUGIN: server.named(tmp_path)}, str(tmp_path / "work"))
        source = PhysicalSource(PhysicalOptions(server="main", spool=False), site)
        restored = server.folder / "restored"
        with closing(FolderSink(Server(PLUGIN, site, "main"), os.fsencode(restored))) as sink:
            async with source.snap() as frozen:
                for entry in source.export(frozen):
                    if isinstance(entry, Entry) and entry.open:
                        sink.receive(entry.path, entry.node, _altered(server, entry))
            sink.finish()
        server.stop()
        server.start(restored)
        assert server.do("SHOW TABLES FROM restless") == [("large",), ("new",)]
        assert server.do("SELECT id FROM restless.new") == [(7,)]


def _altered(server: MariaDb, entry: Entry) -> Iterator[bytes]:
    """The program waits for who reads."""
    assert entry.open
    seen = b""
    with entry.open() as file:
        for piece in iter(lambda: file.read(MIB), b""):
            if not all(name in seen for name in (b"old.MAD", b"gone.MAD")):
                seen += piece
                if all(name in seen for name in (b"old.MAD", b"gone.MAD")):
                    server.do("RENAME TABLE old TO new", "DROP TABLE gone", database="restless")
            yield piece
