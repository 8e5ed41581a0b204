"""What the core refuses before a worker sees it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from snappy.errors import BadOptions, InvalidCommand, UnknownPlugin, UnknownService
from snappy.jobs import vetting
from snappy.jobs.kinds import BackupCommand, InitCommand, RestoreCommand
from snappy.jobs.messages import Beat


class Options(msgspec.Struct, forbid_unknown_fields=True):
    paths: list[str] = []


class RestoreOptions(msgspec.Struct, forbid_unknown_fields=True):
    to: str = ""


class AnyOptions(msgspec.Struct):
    paths: list[str] = []


STRICT = {"backup": msgspec.json.schema(Options), "restore": msgspec.json.schema(RestoreOptions)}


def beat(role: Any = "source", service: str = "site1", **plugins: Any) -> Beat:
    return Beat(service=service, replica="r", role=role, version="1", plugins=plugins)


def backup(**fields: Any) -> BackupCommand:
    return BackupCommand(source="site1", target="vault", **fields)


def test_both_services_must_have_been_seen() -> None:
    source, target = beat(), beat("target", "vault")
    vetting.check_services(backup(), [source, target])
    for beats in ([source], [target], [beat("target", "site1"), beat("source", "vault")], []):
        with pytest.raises(UnknownService):
            vetting.check_services(backup(), beats)


def test_the_plugin_must_be_offered_by_that_service() -> None:
    vetting.check_plugin("backup", backup(plugin="files"), [beat(files=STRICT)])
    with pytest.raises(UnknownPlugin) as refused:
        vetting.check_plugin("backup", backup(plugin="tape"), [beat(files=STRICT), beat(service="other", tape=STRICT)])
    assert "files" in refused.value.hint


def test_a_service_that_tells_no_plugins_decides_itself() -> None:
    vetting.check_plugin("backup", backup(plugin="tape", options={"x": 1}), [beat()])


@pytest.mark.parametrize(("kind", "good"), [("backup", "paths"), ("restore", "to")])
def test_options_are_those_of_the_kind(kind: str, good: str) -> None:
    make = BackupCommand if kind == "backup" else RestoreCommand
    vetting.check_plugin(kind, make(source="site1", target="vault", options={good: 1}), [beat(files=STRICT)])
    with pytest.raises(BadOptions, match="pasword") as refused:
        vetting.check_plugin(
            kind, make(source="site1", target="vault", options={"pasword": "hunter2"}), [beat(files=STRICT)]
        )
    assert "hunter2" not in refused.value.message + refused.value.hint


def test_one_replica_that_takes_it_is_enough() -> None:
    newer = {"backup": {"type": "object", "properties": {"fresh": {}}, "additionalProperties": False}}
    vetting.check_plugin("backup", backup(options={"fresh": 1}), [beat(files=STRICT), beat(files=newer)])


@pytest.mark.parametrize("schema", [msgspec.json.schema(AnyOptions), {}, None, "?"])
def test_a_schema_that_allows_more_is_left_to_the_plugin(schema: Any) -> None:
    vetting.check_plugin("backup", backup(options={"x": 1}), [beat(files={"backup": schema})])


def test_init_has_no_plugin() -> None:
    vetting.check_plugin("init", InitCommand(source="site1", target="vault"), [beat(files=STRICT)])


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"paths": ["/srv", "s3://key:hunter2@bucket/x"]}, "$.options.paths[1]"),
        ({"paths": ["s3://key:hunter2/more@bucket"]}, "$.options.paths[0]"),
        ({"to": "zip://x::sftp://user:1234@host/hunter2"}, "$.options.to"),
        ({"deep": [{"url": "https://:hunter2@host"}]}, "$.options.deep[0].url"),
    ],
)
def test_a_password_in_a_url_is_refused_and_not_repeated(options: dict[str, Any], where: str) -> None:
    with pytest.raises(InvalidCommand) as refused:
        vetting.check_secrets(backup(options=options))
    assert f"`{where}`" in refused.value.message
    assert "hunter2" not in refused.value.message + refused.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/a:b@c",
        "s3://user@bucket/x",
        "http://host:8080/x",
        "http://host:80",
        "sftp://user@host:22/a",
        "http://[::1]:80/",
        "/srv/a://b",
        "12:30@noon",
    ],
)
def test_a_port_or_a_path_is_no_password(url: str) -> None:
    vetting.check_secrets(backup(options={"paths": [url]}, tags=[url], host=url))
