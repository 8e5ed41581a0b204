"""``snappy targets probe`` as its users see it: what it prints, its hints, its exit codes."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import fsspec
import pytest

from snappy.cli.main import main
from snappy.errors import AccessDenied, Unavailable, UnknownService, UsageError
from tests.support.disks import disk
from tests.support.weed import Weed

Captured = pytest.CaptureFixture[str]


def test_a_folder_will_do(tmp_path: Path, capsys: Captured) -> None:
    assert main(["--json", "targets", "probe", str(tmp_path / "kept"), "--size", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["will_do"] is True
    assert found["write_rate"] > 0
    assert all(each["can"] for each in found["findings"])
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_target_of_the_configuration_by_its_name(tmp_path: Path, capsys: Captured) -> None:
    configured = tmp_path / "snappy.toml"
    configured.write_text(f'[target.vault]\nurl = "{tmp_path}/kept"\n')
    assert main(["--config", str(configured), "targets", "probe", "vault", "--size", "1"]) == 0
    assert "will do as a target" in capsys.readouterr().out
    assert main(["--config", str(configured), "targets", "probe", "safe"]) == UnknownService.exit_code
    assert "hint:" in capsys.readouterr().err


def test_options_that_are_none(capsys: Captured) -> None:
    assert main(["targets", "probe", "s3://x", "-o", "secret"]) == UsageError.exit_code
    assert main(["targets", "probe", "./x", "--size", "0"]) == UsageError.exit_code
    assert "--size" in capsys.readouterr().err


@pytest.mark.loop
def test_a_place_that_is_read_only(tmp_path: Path, capsys: Captured) -> None:
    with disk(tmp_path, 16 << 20) as small:
        (small.place / "kept").mkdir()
        small.make_read_only()
        assert main(["targets", "probe", str(small.place / "kept"), "--size", "1"]) == AccessDenied.exit_code
    told = capsys.readouterr().out
    assert "the storage refused access" in told
    assert f"hint: {AccessDenied.hint}" in told
    assert "will not do as a target" in told


@pytest.fixture
def bucket(weed: Weed) -> str:
    name = f"vault-{secrets.token_hex(4)}"
    fsspec.filesystem("s3", skip_instance_cache=True, **weed.options).mkdir(name)
    return name


def probed(weed: Weed, url: str, **others: str) -> int:
    options = [f"{name}={value}" for name, value in (weed.options | others).items()]
    return main(
        ["--json", "targets", "probe", url, "--size", "1", *(word for option in options for word in ("-o", option))]
    )


@pytest.mark.s3
def test_a_bucket_and_what_may_be_wrong_with_it(weed: Weed, bucket: str, capsys: Captured) -> None:
    assert probed(weed, f"s3://{bucket}/site1") == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in found["findings"] if not each["can"]] == ["object lock"]
    for url, wrong, error, sentence in (
        (f"s3://{bucket}", {"secret": "another"}, AccessDenied, "the storage refused access"),
        (f"s3://{bucket}", {"endpoint_url": "http://127.0.0.1:9"}, Unavailable, "the storage did not answer"),
    ):
        assert probed(weed, url, **wrong) == error.exit_code
        told = capsys.readouterr().out
        (write, *_) = json.loads(told)["findings"]
        assert sentence in write["remark"]
        assert write["hint"]
        assert weed.secret_key not in told
