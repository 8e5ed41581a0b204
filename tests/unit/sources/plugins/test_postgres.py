"""What needs no server of the plug-ins for PostgreSQL: scripts, archives, messages."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from snappy.errors import (
    NoSpace,
    ProgramFailed,
    SnappyError,
    SourceDenied,
    SourceError,
    SourceMissing,
    SourceUnavailable,
)
from snappy.sources.plugins.postgres_chain import Chain, KeptChain, ManifestFinder, Member
from snappy.sources.plugins.postgres_server import explained
from snappy.sources.plugins.postgres_sink import statements

SCRIPT = rb"""--
-- PostgreSQL database cluster dump
--

\restrict abc

SET client_encoding = 'UTF8';
CREATE ROLE "a;b";
ALTER ROLE "x
\! touch /tmp/no" WITH PASSWORD 'it''s; "so"';
-- User Configurations

COMMENT ON ROLE c IS E'a\\b;';

\unrestrict abc
"""


def test_statements_end_where_no_quotation_marks_are() -> None:
    assert list(statements(SCRIPT)) == [
        b"SET client_encoding = 'UTF8';",
        b'CREATE ROLE "a;b";',
        b"ALTER ROLE \"x\n\\! touch /tmp/no\" WITH PASSWORD 'it''s; \"so\"';",
        b"COMMENT ON ROLE c IS E'a\\\\b;';",
    ]


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("pg_restore: error: could not extend file: No space left on device", NoSpace),
        ('connection failed: FATAL:  password authentication failed for user "x"', SourceDenied),
        ("pg_dump: error: query failed: ERROR:  permission denied for table t", SourceDenied),
        ('pg_restore: error: could not execute query: ERROR:  role "clerk" does not exist', SourceMissing),
        ('FATAL:  role "snappy" does not exist', SourceDenied),
        ("pg_dump: error: connection to server at x failed: Connection refused", SourceUnavailable),
        ('ERROR:  unrecognized configuration parameter "transaction_timeout"', SourceError),
        ("something else", ProgramFailed),
    ],
)
def test_what_programs_say_of_a_server_is_understood(said: str, kind: type[SnappyError]) -> None:
    with pytest.raises(kind) as raised, explained():
        raise ProgramFailed(said)
    assert type(raised.value) is kind
    assert raised.value.message == said
    assert raised.value.hint or kind is ProgramFailed


@pytest.mark.parametrize("step", [1, 7, 512, 100_000])
def test_the_manifest_is_found_in_an_archive_that_comes_in_pieces(step: int) -> None:
    manifest = os.urandom(5000)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as made:
        for name, content in (("base/1", bytes(700)), ("empty", b""), ("backup_manifest", manifest), ("more", b"x")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    finder, data = ManifestFinder(), archive.getvalue()
    for offset in range(0, len(data), step):
        finder.feed(memoryview(data)[offset : offset + step])
    assert bytes(finder.manifest) == manifest


def test_a_chain_goes_on_for_its_server_and_until_it_is_long_enough(tmp_path: Path) -> None:
    kept = KeptChain(tmp_path / "main.kept")
    assert kept.load(1, 5) == Chain(1)
    chain = Chain(1, (Member("000-full.tar", 10, 20),), b"manifest")
    kept.save(chain)
    assert kept.load(1, 1) == chain
    assert kept.load(1, 0) == Chain(1)
    assert kept.load(2, 5) == Chain(2)
    assert kept.load(1, 5).next_name() == "001-incremental.tar"
    assert kept.lost(chain.members[0]).retryable
    assert kept.load(1, 5).next_name() == "000-full.tar"
    (tmp_path / "main.kept").write_bytes(b"torn")
    assert kept.load(1, 5) == Chain(1)
