from __future__ import annotations

from pathlib import Path

import pytest

from snappy.errors import UsageError
from snappy.targets.local import DurableLocalFileSystem
from snappy.targets.opening import open_storage, open_target
from snappy.targets.s3 import ATTEMPTS, TIMEOUTS


@pytest.mark.parametrize("form", ["{}", "file://{}", "local://{}"])
def test_local_urls_are_durable(form: str, tmp_path: Path) -> None:
    fs, root = open_storage(form.format(tmp_path), {})
    assert isinstance(fs, DurableLocalFileSystem)
    assert root == str(tmp_path)


def test_opening_a_folder_sweeps_what_a_crash_left(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ".0123.snappy-part").write_bytes(b"half")
    (tmp_path / "data" / "whole").write_bytes(b"whole")
    files = open_target(tmp_path.as_uri())
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["whole"]
    assert files.find("") == ["data/whole"]


def test_s3_remembers_no_listing_and_gives_up_in_time() -> None:
    options = {"key": "k", "secret": "s", "config_kwargs": {"read_timeout": 7}}
    fs, root = open_storage("s3://bucket/below", options)
    assert root == "bucket/below"
    assert fs.dircache.use_listings_cache is False
    assert fs.retries == ATTEMPTS
    assert fs.config_kwargs == {**TIMEOUTS, "read_timeout": 7}
    assert open_storage("s3://bucket/below", options)[0] is not fs


@pytest.mark.parametrize("url", ["no-such-protocol://x", "nothing+such://x"])
def test_an_unknown_protocol_is_the_operator_s_error(url: str) -> None:
    with pytest.raises(UsageError):
        open_target(url)


def test_rights_hold_from_the_start(tmp_path: Path) -> None:
    files = open_target(str(tmp_path), rights="rl")
    with pytest.raises(PermissionError):
        files.pipe_file("x", b"")
