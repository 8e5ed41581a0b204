"""``snappy forget``."""

from __future__ import annotations

import argparse
import asyncio
import re
from typing import TYPE_CHECKING, Any

from snappy.cli import follow, options, prune, rules

if TYPE_CHECKING:
    from snappy.cli.session import Session

PERIODS = {"hourly": "H", "daily": "d", "weekly": "w", "monthly": "m", "yearly": "y"}
JOB_FIELDS = ("snapshots", "group_by", "hosts", "tags", "paths", "keep_tags", "unsafe_allow_remove_all", "dry_run")
EPILOG = """\
A policy is put to each group of snapshots by itself. What it does not keep is removed; the data that they alone
needed stays until a prune. --dry-run removes nothing, and says why each snapshot would be kept.
"""


def register(commands: options.Commands) -> None:
    """Add the command."""
    forget = options.command(commands, "forget", "remove snapshots, by a policy or by their ids", epilog=EPILOG)
    options.repository(forget, "--from", "the repository", "--target")
    options.following(forget)
    rules.register(forget)
    forget.add_argument("snapshots", metavar="ID", nargs="*", help="remove these; there is no policy then")
    forget.add_argument("--dry-run", "-n", action="store_true", help="say what would be removed, and why the rest not")
    forget.add_argument("--prune", action="store_true", help="prune too, if any snapshot is removed")
    _register_policy(forget.add_argument_group("what is kept"))
    _register_filters(forget.add_argument_group("which snapshots are looked at"))
    prune.limits(forget)
    forget.set_defaults(run=lambda arguments: asyncio.run(_forget(arguments)))


def _register_policy(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--keep-last", "-l", metavar="N", type=count, help="the newest N, or `unlimited`")
    for period, letter in PERIODS.items():
        summary = f"one for each of the newest N {period} periods, or `unlimited`"
        group.add_argument(f"--keep-{period}", f"-{letter}", metavar="N", type=count, help=summary)
    group.add_argument("--keep-within", metavar="TIME", help="all in so long before the newest, for example 1y5m7d2h")
    for period in PERIODS:
        group.add_argument(f"--keep-within-{period}", metavar="TIME", help=f"one for each {period} period in that time")
    group.add_argument(
        "--keep-tag", dest="keep_tags", metavar="TAG[,TAG...]", action="append", help="all that have all of these"
    )
    group.add_argument(
        "--unsafe-allow-remove-all", action="store_true", help="without a policy: all that the filters let through"
    )


def _register_filters(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--host", dest="hosts", metavar="HOST", action="append", help="of this host, or another named")
    group.add_argument("--tag", dest="tags", metavar="TAG[,TAG...]", action="append", help="that have all of these")
    group.add_argument("--path", dest="paths", metavar="PATH", action="append", help="of this path, and others named")
    group.add_argument(
        "--group-by", "-g", metavar="WORDS", help="of host, paths and tags, with commas (default: host,paths)"
    )


def count(text: str) -> int | str:
    """A number of snapshots, or the word for all of them."""
    if not re.fullmatch("unlimited|[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor `unlimited`")
    return text if text == "unlimited" else int(text)


async def _forget(arguments: argparse.Namespace) -> int:
    from snappy.cli import session

    async with session.for_repository(arguments) as opened:
        return await follow.run(opened, "forget", fields(opened, arguments), arguments)


def fields(session: Session, arguments: argparse.Namespace) -> dict[str, Any]:
    """The command that the arguments stand for."""
    names = [*JOB_FIELDS, "prune", *prune.LIMITS, "keep_last", "keep_within"]
    names += [f"keep_{within}{period}" for period in PERIODS for within in ("", "within_")]
    given = {name: value for name in names if (value := getattr(arguments, name)) not in (None, False, [])}
    return {**session.names(arguments.request), **rules.fields(arguments), **given}
