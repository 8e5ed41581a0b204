"""``snappy targets probe``: whether a place will do as a target, and what it can do."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import msgspec

from snappy.cli import options, output
from snappy.errors import StorageError, UnknownService, UsageError

if TYPE_CHECKING:
    from snappy.targets.probing import Probe

MIB = 1 << 20


def register(commands: options.Commands) -> None:
    """Add the commands."""
    targets = options.command(commands, "targets", "places to keep backups in")
    verbs = targets.add_subparsers(title="verbs", metavar="VERB", required=True)
    probe = options.command(verbs, "probe", "try out what a place can do; nothing is left there")
    probe.add_argument("place", metavar="URL-or-TARGET", help="a URL, a path, or a target of this configuration")
    probe.add_argument("--size", metavar="MIB", type=int, default=16, help="of the object that is written (16)")
    probe.add_argument(
        "--option", "-o", metavar="NAME=VALUE", action="append", default=[], help="one of its storage_options"
    )
    probe.set_defaults(run=_probe)


def _probe(arguments: argparse.Namespace) -> int:
    from snappy.bus.failures import translate
    from snappy.targets.opening import open_target
    from snappy.targets.policy import LETTERS
    from snappy.targets.probing import probe

    if arguments.size < 1:
        raise UsageError("--size is a number of MiB, 1 or more")
    url, settings = _place(arguments)
    try:
        files = open_target(url, settings, LETTERS)
    except OSError as error:
        raise translate(error, arguments.place) from error
    found = probe(files, arguments.size * MIB)
    output.result(msgspec.to_builtins(found), _told(found), as_json=arguments.json)
    return 0 if found.will_do else _exit_code(found)


def _exit_code(found: Probe) -> int:
    from snappy.error_codes import from_code

    failed = next(each for each in found.findings if each.needed and not each.can)
    return from_code(failed.code or StorageError.code, failed.remark).exit_code


def _place(arguments: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    given = dict(_option(text) for text in arguments.option)
    if options.is_place(arguments.place):
        return options.as_url(arguments.place), given
    configured = options.load(arguments).target.get(arguments.place)
    if configured is None:
        hint = "give a URL, a path (./folder), or a name below [target] of the configuration"
        raise UnknownService(f"no target is named {arguments.place!r} here", hint=hint)
    return configured.url, configured.storage_options | given


def _option(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise UsageError(f"--option {text!r} is not NAME=VALUE")
    return name, value


def _told(found: Probe) -> str:
    rows = [[each.name, _word(each.can, each.needed), each.remark] for each in found.findings]
    skew = "not shown" if found.skew_seconds is None else f"{found.skew_seconds:+.1f} s"
    figures = (
        f"writes {found.write_rate / MIB:.1f} MiB/s, reads {found.read_rate / MIB:.1f} MiB/s, "
        f"answers in {found.latency_seconds * 1000:.1f} ms, its clock's skew: {skew}"
    )
    verdict = "will do as a target" if found.will_do else "will not do as a target"
    hints = [f"hint: {each.hint}" for each in found.findings if each.needed and each.hint][:1]
    return "\n".join((output.table(("WHAT", "CAN", "REMARK"), rows), figures, verdict, *hints))


def _word(can: bool, needed: bool) -> str:
    return "yes" if can else "NO" if needed else "no"
