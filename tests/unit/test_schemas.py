from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from snappy.bus.subjects import Subjects
from snappy.schemas import asyncapi, structs
from snappy.schemas.__main__ import main, stale, write

COMMITTED = Path(__file__).parents[2] / "schemas"
structs.documents()  # reads sentences from source now: Python 3.11 cannot parse beside threads of other tests


def addresses() -> list[str]:
    """Of every method of Subjects that builds a subject, with its parameters' names in braces."""
    names = Subjects()
    found: list[str] = []
    for name, member in inspect.getmembers(Subjects):
        if name.startswith(("_", "parse_")):
            continue
        value: Any = getattr(names, name)
        if inspect.isfunction(member):
            value = value(**{key: f"{{{key}}}" for key in inspect.signature(value).parameters})
        found += [value] if isinstance(value, str) else value
    return [subject.replace("*", "{any}") for subject in found if subject.startswith("snappy.")]


def covers(subject: str, address: str) -> bool:
    pairs = zip(subject.split("."), address.split("."), strict=False)
    return subject.count(".") == address.count(".") and all(
        mine == theirs or mine.startswith("{") for mine, theirs in pairs
    )


def test_the_committed_schemas_are_fresh() -> None:
    assert stale(COMMITTED) == [], "run `make schemas`"


@pytest.mark.parametrize("subject", addresses())
def test_every_subject_has_a_channel(subject: str) -> None:
    assert any(covers(subject, channel.address) for channel in asyncapi.CHANNELS)


def test_every_channel_is_a_subject() -> None:
    for channel in asyncapi.CHANNELS:
        assert any(covers(subject, channel.address) for subject in addresses()), channel.address


def test_references_lead_somewhere() -> None:
    document = asyncapi.document()
    text = json.dumps(document)
    for struct in structs.all_structs():
        assert f"./{structs.file_name(struct)}" in text
    for channel in document["channels"].values():
        for reference in channel["messages"].values():
            assert reference["$ref"].rpartition("/")[2] in document["components"]["messages"]


def test_parameters_of_every_address_are_described() -> None:
    for name, channel in asyncapi.document()["channels"].items():
        holes = (channel["address"] or "").count("{")
        assert len(channel["parameters"] if holes else {}) == holes, name


def test_a_field_carries_its_sentence() -> None:
    schema = json.loads((COMMITTED / "backup-command.json").read_text())
    assert schema["$defs"]["BackupCommand"]["properties"]["source"]["description"].startswith("The source service")


def test_check_tells_what_is_stale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    assert main(["--check", str(tmp_path)]) == 0
    (tmp_path / "beat.json").write_text("{}")
    (tmp_path / "fs" / "put.json").unlink()
    (tmp_path / "gone.json").write_text("{}")
    assert main(["--check", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert all(f"stale: {name}" in told for name in ("beat.json", "fs/put.json", "gone.json"))
    assert main([str(tmp_path)]) == 0
    assert stale(tmp_path) == []
