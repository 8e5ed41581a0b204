"""Options: places, plug-in options, passwords, and what is refused when a server is configured."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from snappy.cli import backup, options, passwords
from snappy.errors import UsageError


@pytest.mark.parametrize("text", ["/srv/repo", "./repo", "../repo", ".", "~/repo", "s3://bucket/x", "file:///x"])
def test_a_place(text: str) -> None:
    assert options.is_place(text)


@pytest.mark.parametrize("text", ["vault", "vault-2", "repo"])
def test_a_name(text: str) -> None:
    assert not options.is_place(text)


def test_a_path_is_made_absolute_and_a_url_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/of/me")
    assert options.as_url("./a/../b") == str(tmp_path / "b")
    assert options.as_url("~/c") == "/home/of/me/c"
    assert options.as_url("s3://bucket/../x") == "s3://bucket/../x"


def arguments(**given: object) -> argparse.Namespace:
    return argparse.Namespace(**{"place": "vault", "password_file": None, "password_command": None, **given})


def test_with_a_server_names_alone_will_do() -> None:
    options.refuse_with_a_server(arguments())


@pytest.mark.parametrize(
    ("given", "says", "hint"),
    [
        ({"place": "/srv/repo"}, "/srv/repo", "name a target"),
        ({"place": "s3://b"}, "s3://b", "name a target"),
        ({"password_file": "f"}, "--password-file", "--key"),
        ({"password_command": "c"}, "--password-command", "--key"),
    ],
)
def test_with_a_server_places_and_passwords_are_refused(given: dict[str, object], says: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        options.refuse_with_a_server(arguments(**given))
    assert says in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("name=value", ("name", "value")),
        ("number=3", ("number", 3)),
        ('list=["a"]', ("list", ["a"])),
        ("equation=a=b", ("equation", "a=b")),
        ("empty=", ("empty", "")),
        ("flag=true", ("flag", True)),
    ],
)
def test_plug_in_options(text: str, pair: tuple[str, object]) -> None:
    assert backup.parse_option(text) == pair


@pytest.mark.parametrize("text", ["", "name", "=value"])
def test_what_is_no_option(text: str) -> None:
    with pytest.raises(UsageError):
        backup.parse_option(text)


def what(**given: object) -> argparse.Namespace:
    nothing: dict[str, object] = {
        name: [] for name in ("paths", "exclude", "exclude_file", "exclude_if_present", "option")
    }
    return argparse.Namespace(
        **{**nothing, "exclude_caches": False, "one_file_system": False, "plugin": "files", **given}
    )


def test_what_is_backed_up(tmp_path: Path) -> None:
    (tmp_path / "patterns").write_text("# a comment\n\n*.tmp\n!kept.tmp\n")
    chosen = backup.plugin_options(
        what(paths=["/a"], exclude=["x"], exclude_file=[str(tmp_path / "patterns")], one_file_system=True)
    )
    assert chosen == {"paths": ["/a"], "exclude": ["x", "*.tmp", "!kept.tmp"], "one_file_system": True}


def test_another_plug_in_needs_no_paths() -> None:
    assert backup.plugin_options(what(plugin="postgres", option=["database=shop"])) == {"database": "shop"}


def test_files_need_a_path_and_patterns_a_file() -> None:
    with pytest.raises(UsageError, match="nothing to back up"):
        backup.plugin_options(what())
    with pytest.raises(UsageError, match="no-such-file"):
        backup.plugin_options(what(paths=["/a"], exclude_file=["/no-such-file"]))


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "password"
    path.write_text("from a file\n")
    path.chmod(0o600)
    return str(path)


def test_where_a_password_comes_from(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert passwords.find(arguments(password_file=file)) == "from a file"
    assert passwords.find(arguments(password_command="echo said")) == "said"
    monkeypatch.setenv("SNAPPY_PASSWORD", "from the environment")
    assert passwords.find(arguments()) == "from the environment"
    assert passwords.find(arguments(password_file=file)) == "from a file"


def test_a_question_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = ["typed", "new", "new", "one", "other"]
    monkeypatch.setattr(passwords.sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
    monkeypatch.setattr(passwords.getpass, "getpass", lambda _question: typed.pop(0))
    assert passwords.find(arguments()) == "typed"
    assert passwords.find(arguments(), new=True) == "new"
    with pytest.raises(UsageError, match="differ"):
        passwords.find(arguments(), new=True)


def test_no_password_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str) -> None:
    monkeypatch.setattr(passwords.sys, "stdin", type("Pipe", (), {"isatty": lambda self: False})())
    with pytest.raises(UsageError, match="no password"):
        passwords.find(arguments())
    (tmp_path / "password").write_text("\n")
    with pytest.raises(UsageError, match="empty"):
        passwords.find(arguments(password_file=file))
    with pytest.raises(UsageError, match="exclude"):
        passwords.find(arguments(password_file=file, password_command="c"))
