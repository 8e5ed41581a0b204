"""What a role's own process is told, and which variables it inherits."""

from __future__ import annotations

import msgspec

from snappy import serve
from snappy.cli import children, slots
from snappy.config import Allow, Config, Core, Nats, Secret, SourceService, TargetService
from snappy.serve import Host, Role

SETTINGS = Config(
    state_dir="/state",
    nats=Nats(url="nats://bus", user="core", password=Secret(env="BUS_PASSWORD")),
    core=Core(signing_key=Secret(file="/keys/core")),
    source={
        "site": SourceService(
            keys={"default": Secret(env="SITE_PASSWORD")},
            allow={"alice": Allow(kinds=["*"])},
            nats=Nats(url="nats://bus", user="site", password=Secret(env="SITE_BUS")),
        )
    },
    target={"vault": TargetService(url="s3://bucket", storage_options={"secret": "s3-credential"})},
)
ENVIRON = {
    "PATH": "/bin",
    "LC_ALL": "C",
    "SITE_PASSWORD": "repository-password",
    "SITE_BUS": "bus-password",
    "AWS_SECRET_ACCESS_KEY": "aws-credential",
    "SNAPPY_CONFIG": "/etc/all.toml",
    "OTHER": "thing",
}


def told(role: Role) -> str:
    return msgspec.json.encode(children.told(Host(SETTINGS, signing_key="signing", public_key="public"), role)).decode()


def test_a_source_is_told_nothing_of_targets_and_core() -> None:
    text = told(Role("source", "site"))
    assert "SITE_PASSWORD" in text
    assert not any(word in text for word in ("s3-credential", "/keys/core", 'signing"', "BUS_PASSWORD"))


def test_a_target_is_told_nothing_of_sources_and_core() -> None:
    text = told(Role("target", "vault"))
    assert "s3-credential" in text
    assert '"public_key":"public"' in text
    assert not any(word in text for word in ("SITE_PASSWORD", "/keys/core", '"signing"'))


def test_the_core_is_told_nothing_of_either() -> None:
    text = told(Role("core"))
    assert "/keys/core" in text
    assert not any(word in text for word in ("SITE_PASSWORD", "s3-credential", "site", "vault"))


def test_what_is_told_can_be_read_back() -> None:
    start = msgspec.json.decode(told(Role("source", "site")), type=serve.ChildStart)
    assert start.config.nats.user == "site"
    assert start.config.source["site"].keys == {"default": Secret(env="SITE_PASSWORD")}


def environment(role: Role) -> dict[str, str]:
    start = children.told(Host(SETTINGS), role)
    return children.environment(role, start, ENVIRON)


def test_a_source_inherits_what_its_secrets_name() -> None:
    assert environment(Role("source", "site")) == {
        "PATH": "/bin",
        "LC_ALL": "C",
        "SITE_PASSWORD": "repository-password",
        "SITE_BUS": "bus-password",
    }


def test_a_target_alone_inherits_storage_credentials() -> None:
    assert environment(Role("target", "vault")) == {
        "PATH": "/bin",
        "LC_ALL": "C",
        "AWS_SECRET_ACCESS_KEY": "aws-credential",
    }
    assert environment(Role("core")) == {"PATH": "/bin", "LC_ALL": "C"}


def test_the_names_of_passing_services() -> None:
    assert slots.is_passing(slots.Slot(7).source)
    assert not any(map(slots.is_passing, ("site", "local", "local-x", "place-1", "mylocal-1")))
