from __future__ import annotations

import msgspec
import pytest

from snappy.errors import Damaged
from snappy.repository.gotext import escape_html, format_time, json_string, parse_time, quote, unquote

QUOTED = (
    (b"", ""),
    (b"plain name.txt", "plain name.txt"),
    (b'say "hi" \\ there', r"say \"hi\" \\ there"),
    (b"\a\b\t\n\v\f\r", r"\a\b\t\n\v\f\r"),
    (b"\x00\x01\x1f\x7f", r"\x00\x01\x1f\x7f"),
    ("é€😀 \ufffd".encode(), "é€😀 \ufffd"),
    ("\u00a0\u00ad\u2028\ufeff\U000e0001".encode(), r"\u00a0\u00ad\u2028\ufeff\U000e0001"),
    (b"\xff\xfe\x80", r"\xff\xfe\x80"),
    (b"\xe2\x82cut\xc0\xaf\xed\xa0\x80", r"\xe2\x82cut\xc0\xaf\xed\xa0\x80"),
    (b"<&>'", "<&>'"),
)
TIMES = (
    (0, "1970-01-01T00:00:00Z"),
    (1, "1970-01-01T00:00:00.000000001Z"),
    (-1, "1969-12-31T23:59:59.999999999Z"),
    (1_234_567_890_120_000_000, "2009-02-13T23:31:30.12Z"),
    (-62_135_596_800_000_000_000, "0001-01-01T00:00:00Z"),
)


@pytest.mark.parametrize(("name", "text"), QUOTED)
def test_quote(name: bytes, text: str) -> None:
    assert quote(name) == text
    assert unquote(text) == name


@pytest.mark.parametrize(
    ("text", "name"), [(r"\101\377", b"A\xff"), (r"\u00e9\U0001F600", "é😀".encode()), ("é", "é".encode())]
)
def test_unquote_knows_forms_that_are_never_written(text: str, name: bytes) -> None:
    assert unquote(text) == name


@pytest.mark.parametrize(
    "text", ['a"b', "a\\", r"\q", r"\x4", r"\xzz", r"\400", r"\u12", r"\ud800", r"\U00110000", "a\nb", r"\'"]
)
def test_what_is_not_quoted_is_refused(text: str) -> None:
    with pytest.raises(Damaged):
        unquote(text)


def test_json_string_keeps_what_is_utf8() -> None:
    assert json_string("é<".encode()) == "é<"


def test_json_string_marks_each_byte_that_is_not() -> None:
    assert msgspec.json.encode(json_string(b'a"\xe2\x82b\xff')) == rb'"a\"\ufffd\ufffdb\ufffd"'


def test_escape_html() -> None:
    assert escape_html('{"<a>":"&\u2028\u2029"}'.encode()) == rb'{"\u003ca\u003e":"\u0026\u2028\u2029"}'


@pytest.mark.parametrize(("nanoseconds", "text"), TIMES)
def test_times(nanoseconds: int, text: str) -> None:
    assert format_time(nanoseconds) == text
    assert parse_time(text) == nanoseconds


@pytest.mark.parametrize("zone", ["+01:00", "-11:30", "+00:00"])
def test_zones(zone: str) -> None:
    hours, minutes = int(zone[1:3]), int(zone[4:])
    behind = (hours * 60 + minutes) * 60 * (1 if zone[0] == "-" else -1)
    assert parse_time(f"1970-01-02T00:00:00.5{zone}") == (86_400 + behind) * 10**9 + 500_000_000


def test_times_out_of_reach_become_the_nearest() -> None:
    assert format_time(10**22) == "9999-12-31T23:59:59Z"
    assert format_time(-(10**22)) == "0001-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "text", ["", "now", "2020-01-01", "2020-01-01T00:00:00", "2020-13-01T00:00:00Z", "2020-01-01 00:00:00Z"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(Damaged):
        parse_time(text)
