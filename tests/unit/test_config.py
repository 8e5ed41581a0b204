"""The configuration: what is read, what is refused, and with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from snappy import config
from snappy.errors import UsageError

FULL = """
prefix = "edge"
[nats]
url = "nats://bus:4222"
user = "site-1"
password = { env = "BUS_PASSWORD" }
[core]
hold_seconds = 12
[source.site-1]
scratch = "/srv/scratch"
[source.site-1.keys]
default = { file = "/etc/snappy/key" }
[source.site-1.allow.alice]
kinds = ["backup"]
read = ["/srv"]
[target.vault]
url = "s3://bucket/prefix"
[target.vault.storage_options]
endpoint_url = "http://store"
"""


def written(folder: Path, text: str) -> str:
    place = folder / "snappy.toml"
    place.write_text(text)
    return str(place)


def refused(folder: Path, text: str, environ: dict[str, str] | None = None) -> UsageError:
    with pytest.raises(UsageError) as caught:
        config.load(written(folder, text), environ or {})
    return caught.value


def test_a_full_file(tmp_path: Path) -> None:
    loaded = config.load(written(tmp_path, FULL), {})
    assert loaded.prefix == "edge"
    assert loaded.nats.password == config.Secret(env="BUS_PASSWORD")
    assert loaded.core is not None
    assert loaded.core.hold_seconds == 12
    assert loaded.source["site-1"].allow["alice"].read == ["/srv"]
    assert loaded.target["vault"].storage_options == {"endpoint_url": "http://store"}


def test_no_file_and_no_variables_give_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = config.load(None, {"HOME": str(tmp_path)})
    assert loaded == config.Config(state_dir=str(tmp_path / ".local/state/snappy"))


def test_the_nearest_file_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home" / ".config" / "snappy"
    home.mkdir(parents=True)
    (home / "snappy.toml").write_text('prefix = "home"')
    environ = {"HOME": str(tmp_path / "home")}
    assert config.load(None, environ).prefix == "home"
    written(tmp_path, 'prefix = "here"')
    assert config.load(None, environ).prefix == "here"
    elsewhere = tmp_path / "other.toml"
    elsewhere.write_text('prefix = "named"')
    assert config.load(None, {**environ, "SNAPPY_CONFIG": str(elsewhere)}).prefix == "named"


@pytest.mark.parametrize(
    ("text", "wrong", "right"),
    [
        ('prefx = "x"', "prefx", "prefix"),
        ('[nats]\nurll = "x"', "urll", "url"),
        ("[core]\nhold_secs = 3", "hold_secs", "hold_seconds"),
        ('[source.a.allow.bob]\nkindz = ["backup"]', "kindz", "kinds"),
        ('[source.a.keys]\nmain = { fil = "x" }', "fil", "file"),
        ('[target.v]\nurl = "memory://x"\nright = "rl"', "right", "rights"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_right_one(
    tmp_path: Path, text: str, wrong: str, right: str
) -> None:
    error = refused(tmp_path, text)
    assert f"`{wrong}`" in error.message
    assert "snappy.toml" in error.message
    assert error.hint == f"did you mean '{right}'?"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('[core]\nhold_seconds = "soon"', "$.core.hold_seconds"),
        ("[core]\nhold_seconds = -1", "$.core.hold_seconds"),
        ("prefix = 3", "$.prefix"),
        ('[target.v]\nurl = "memory://x"\nrights = "rx"', "$.target[...].rights"),
        ("[target.v]\nrights = 'rl'", "$.target[...]"),
        ("[source.Upper]", "key"),
        ("[source.a.keys]\ndefault = {}", "$.source[...].keys[...]"),
        ('[source.a.keys]\ndefault = { file = "a", env = "B" }', "exactly one"),
        ('log_level = "loud"', "$.log_level"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(tmp_path: Path, text: str, path: str) -> None:
    assert path in refused(tmp_path, text).message


def test_what_is_not_toml_is_refused(tmp_path: Path) -> None:
    assert "is not TOML" in refused(tmp_path, "prefix = ").message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no-such-file"):
        config.load(str(tmp_path / "no-such-file"), {})


def test_variables_override_the_file(tmp_path: Path) -> None:
    environ = {
        "SNAPPY_NATS_URL": "nats://other:4222",
        "SNAPPY_LOG_LEVEL": "debug",
        "SNAPPY_CORE__HOLD_SECONDS": "7.5",
        "SNAPPY_CORE__MAX_ATTEMPTS": "9",
        "SNAPPY_SOURCE__SITE_1__HOST": "north",
        "SNAPPY_PASSWORD": "read by the command line alone",
    }
    loaded = config.load(written(tmp_path, FULL), environ)
    assert loaded.nats.url == "nats://other:4222"
    assert loaded.log_level == "debug"
    assert loaded.core is not None
    assert (loaded.core.hold_seconds, loaded.core.max_attempts) == (7.5, 9)
    assert loaded.source["site-1"].host == "north"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("SNAPPY_NATS_URI", "did you mean 'SNAPPY_NATS_URL'?"),
        ("SNAPPY_STATEDIR", "did you mean 'SNAPPY_STATE_DIR'?"),
        ("SNAPPY_CORE__HOLD_SECOND", "did you mean 'hold_seconds'?"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_right_one(tmp_path: Path, name: str, hint: str) -> None:
    error = refused(tmp_path, "", {name: "x"})
    assert name in error.message
    assert error.hint == hint


def test_a_wrong_value_in_a_variable_names_the_variable(tmp_path: Path) -> None:
    error = refused(tmp_path, "", {"SNAPPY_CORE__HOLD_SECONDS": "soon"})
    assert "SNAPPY_CORE__HOLD_SECONDS" in error.message
    assert "$.core.hold_seconds" in error.message


def test_a_typing_error_in_the_file_is_not_excused_by_lax_variables(tmp_path: Path) -> None:
    assert "$.core.max_attempts" in refused(tmp_path, '[core]\nmax_attempts = "3"').message


def test_a_variable_that_holds_a_secret_of_the_file_may_have_any_name(tmp_path: Path) -> None:
    text = '[source.site.keys]\ndefault = { env = "SNAPPY_SITE_KEY" }'
    assert config.load(written(tmp_path, text), {"SNAPPY_SITE_KEY": "x"}).source["site"].keys
    assert "SNAPPY_SITE_KEY" in refused(tmp_path, "", {"SNAPPY_SITE_KEY": "x"}).message
