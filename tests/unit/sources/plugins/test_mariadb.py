"""What needs no server of the plug-ins for MariaDB: option files, streams, messages."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import pytest

from snappy.errors import (
    BadOptions,
    Damaged,
    NoSpace,
    ProgramFailed,
    SnappyError,
    SourceDenied,
    SourceError,
    SourceMissing,
    SourceUnavailable,
    UnsafePath,
)
from snappy.sources.plugins.mariadb_accounts import script
from snappy.sources.plugins.mariadb_dumps import Chained, Spooled
from snappy.sources.plugins.mariadb_folder import StreamWatch
from snappy.sources.plugins.mariadb_server import Server, explained, identifier
from snappy.sources.programs import Program
from snappy.sources.site import Site


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("mariadb-dump: Got errno 28 on write", NoSpace),
        ("mariadb: ERROR 1114 (HY000) at line 3: The table 't' is full", NoSpace),
        ('mariadb-dump: Got error: 1045: "Access denied for user" when trying to connect', SourceDenied),
        (
            "[00] Failed to connect to MariaDB server: Access denied for user 'x'@'localhost' (using password: YES)",
            SourceDenied,
        ),
        ('mariadb-dump: Got error: 1049: "Unknown database" when selecting the database', SourceMissing),
        ('mariadb-dump: Got error: 2002: "Can\'t connect to server (115)" when trying', SourceUnavailable),
        ("mariadb-dump: Error 2013: Lost connection to server during query when dumping table", SourceUnavailable),
        ("mariadb-dump: Couldn't execute 'SHOW': Table definition has changed (1412)", SourceUnavailable),
        ("mariadb: ERROR 1273 (HY000) at line 3: Unknown collation: 'utf8mb4_uca1400_ai_ci'", SourceError),
        ("something else 1045", ProgramFailed),
    ],
)
def test_what_programs_say_of_a_server_is_understood(said: str, kind: type[SnappyError]) -> None:
    with pytest.raises(kind) as raised, explained():
        raise ProgramFailed(said)
    assert type(raised.value) is kind
    assert raised.value.message == said
    assert raised.value.hint or kind is ProgramFailed


def _server(folder: Path, password: str) -> Server:
    file = folder / "secret"
    file.write_text(password)
    file.chmod(0o600)
    given = {"host": "db", "user": "it", "password": {"file": str(file)}}
    return Server("mariadb", Site("site", {"mariadb": {"main": given}}), "main")


def test_a_password_is_in_a_file_that_only_the_program_reads(tmp_path: Path) -> None:
    argument = _server(tmp_path, 'a"b\\c#d').option_file(tmp_path)
    path = Path(argument.removeprefix("--defaults-file="))
    assert path.stat().st_mode & 0o777 == 0o600
    assert 'password="a"b\\\\c#d"\n' in path.read_text()


def test_without_authorities_no_program_asks_for_tls(tmp_path: Path) -> None:
    _server(tmp_path, "a").option_file(tmp_path)
    assert "skip-ssl" in (tmp_path / "client.cnf").read_text().splitlines()


def test_a_password_of_two_lines_would_be_another_setting(tmp_path: Path) -> None:
    with pytest.raises(BadOptions, match="line break"):
        _server(tmp_path, "a\nb").option_file(tmp_path)


def test_names_are_quoted() -> None:
    assert identifier("a`b") == "`a``b`"


def test_accounts_are_made_before_any_gets_another_as_its_role() -> None:
    accounts = {"`a`": ["CREATE ROLE `a`", "GRANT `b` TO `a`"], "`b`": ["CREATE ROLE `b`"]}
    assert script(accounts) == b"CREATE ROLE `a`;\nCREATE ROLE `b`;\nGRANT `b` TO `a`;\n"


def test_what_follows_is_opened_when_it_is_its_turn_and_closed() -> None:
    opened: list[BinaryIO] = []

    def part(data: bytes) -> BinaryIO:
        assert all(before.closed for before in opened)
        opened.append(io.BytesIO(data))
        return opened[-1]

    with io.BufferedReader(Chained([lambda: part(b"one"), lambda: part(b""), lambda: part(b"two")])) as chained:
        assert chained.read() == b"onetwo"
    assert [each.closed for each in opened] == [True] * 3


DUMPING = """
import sys, time
from pathlib import Path
from snappy.sources.plugins.mariadb_dumps import Spooled
from snappy.sources.programs import Program
spooled = Spooled(Path(sys.argv[1]), lambda **how: Program(["sh", "-c", "echo $$; exec sleep 60"], **how))
spooled.start()
while not spooled.has_begun():
    time.sleep(0.01)
print(spooled.readline().decode(), flush=True)
time.sleep(60)
"""


def test_a_dump_does_not_outlive_who_reads_it(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", DUMPING, str(tmp_path / "dump")], stdout=subprocess.PIPE) as reader:
        assert reader.stdout
        dumping = int(reader.stdout.readline())
        reader.kill()
    end = time.monotonic() + 10
    while Path(f"/proc/{dumping}/status").exists() and "State:\tZ" not in Path(f"/proc/{dumping}/status").read_text():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_who_reads_faster_than_is_dumped_gets_all_of_it(tmp_path: Path) -> None:
    spooled = Spooled(tmp_path / "dump", lambda **how: Program(["sh", "-c", "echo one; sleep 0.2; echo two"], **how))
    with closing(spooled):
        spooled.start()
        assert spooled.readall() == b"one\ntwo\n"


def test_a_dump_that_failed_has_no_end(tmp_path: Path) -> None:
    spooled = Spooled(tmp_path / "dump", lambda **how: Program(["sh", "-c", "echo one; exit 3"], **how))
    with closing(spooled):
        spooled.start()
        assert spooled.readline() == b"one\n"
        with pytest.raises(ProgramFailed, match="code 3"):
            spooled.read(1)
    assert not (tmp_path / "dump").exists()


def _chunk(path: bytes, data: bytes | None) -> bytes:
    head = struct.pack("<8sBcI", b"XBSTCK01", 0, b"E" if data is None else b"P", len(path)) + path
    return head if data is None else head + struct.pack("<QQI", len(data), 0, 0) + data


def _told(kind: bytes, path: bytes, rest: bytes = b"") -> bytes:
    return struct.pack("<8sBcI", b"XBSTCK01", 0, kind, len(path)) + path + rest


def _renamed(path: bytes, to: bytes) -> bytes:
    return _told(b"R", path, struct.pack("<I", len(to)) + to)


STREAM = b"".join([
    _chunk(b"a/b", bytes(100)),
    _told(b"S", b"a/b", bytes(8)),
    _chunk(b"a/b", bytes(3)),
    _chunk(b"a/b", None),
    _renamed(b"a/b", b"a/long name"),
    _chunk(b"c", b""),
    _chunk(b"c", None),
    _told(b"D", b"c"),
])  # fmt: skip
"""With all that is said of files that were changed while they were read."""


@pytest.mark.parametrize("step", [1, 7, 64, 1000])
def test_a_stream_passes_in_pieces(step: int) -> None:
    watch = StreamWatch()
    for offset in range(0, len(STREAM), step):
        watch.feed(STREAM[offset : offset + step])
    watch.finish()


@pytest.mark.parametrize("end", [5, 20, 60, 145, 160, len(STREAM) - 70, len(STREAM) - 1])
def test_a_stream_that_ends_early_is_noticed(end: int) -> None:
    watch = StreamWatch()
    watch.feed(STREAM[:end])
    with pytest.raises(Damaged):
        watch.finish()


@pytest.mark.parametrize("path", [b"../x", b"/etc/x", b"a/../../x", b"a\0b"])
def test_a_stream_that_names_a_place_elsewhere_is_refused(path: bytes) -> None:
    for chunk in (_chunk(path, b"x"), _told(b"D", path), _renamed(path, b"a"), _renamed(b"a", path)):
        with pytest.raises(UnsafePath):
            StreamWatch().feed(chunk)


@pytest.mark.parametrize("wrong", [bytes(100), _told(b"X", b"a"), _told(b"D", bytes(5000)), _renamed(b"a", b"")])
def test_what_is_no_stream_is_refused(wrong: bytes) -> None:
    with pytest.raises(Damaged):
        StreamWatch().feed(wrong)
