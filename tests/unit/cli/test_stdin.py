"""`snappy backup --stdin`: what it excludes, and `snappy restore` with and without a place."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from snappy.cli import backup, options, restore, stdin
from snappy.config import Config
from snappy.errors import UsageError


def parsed(group: Any, *words: str) -> argparse.Namespace:
    parser = options.Parser(prog="snappy")
    group.register(parser.add_subparsers())
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--stdin /srv", "no paths"),
        ("--stdin --stdin-from-command date", "exclude"),
        ("--stdin-from-command", "no command"),
        ("--stdin --plugin null", "--plugin"),
        ("--stdin --option a=b", "--option"),
    ],
)
def test_what_goes_with_standard_input(words: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        backup.plugin_options(parsed(backup, "backup", "--to", "./repo", *words.split()))


def test_only_the_commands_own_service_reads_standard_input() -> None:
    given = parsed(backup, "backup", "--to", "vault", "--stdin", "--stdin-filename", "dump.sql")
    assert backup.plugin_options(given) == {"filename": "dump.sql"}
    (service,) = stdin.made_available(Config(), given).source.values()
    assert service.plugins == {"stdin": {"default": {}}}
    with pytest.raises(UsageError, match="without a server alone"):
        stdin.refuse_with_a_service(given)
    plain = parsed(backup, "backup", "/srv", "--to", "vault")
    assert stdin.made_available(Config(), plain) == Config()
    stdin.refuse_with_a_service(plain)


def test_a_command_and_its_arguments() -> None:
    given = parsed(backup, "backup", "--to", "./repo", "--stdin-from-command", "--", "pg_dump", "-Fc", "db")
    assert backup.plugin_options(given) == {}
    (service,) = stdin.made_available(Config(), given).source.values()
    assert service.plugins == {"stdin": {"default": {"command": ["pg_dump", "-Fc", "db"]}}}


def test_files_are_restored_to_a_place_and_others_to_what_their_options_say() -> None:
    with pytest.raises(UsageError, match="no place"):
        restore.plugin_options(parsed(restore, "restore", "latest", "--from", "vault"))
    given = parsed(restore, "restore", "latest", "--from", "vault", "--plugin", "command", "--option", "name=ldap")
    assert restore.plugin_options(given) == {"name": "ldap"}
