"""The command ``snappy``: finds the command's group, runs it, and turns what it raises into an exit code."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from importlib import metadata

from snappy import __version__, log
from snappy.cli import (
    audit,
    backup,
    cat,
    check,
    copy,
    diff,
    drill,
    drills,
    dump,
    events,
    find,
    forget,
    jobs,
    key,
    keys,
    ls,
    mount,
    options,
    output,
    plugins,
    prune,
    repair,
    restore,
    schedules,
    services,
    snapshots,
    stats,
    status,
    targets,
    up,
)
from snappy.error_codes import cause_of
from snappy.errors import InternalError, Interrupted, SnappyError

EXIT_CODES = """\
exit codes:
  0   done
  1   failed for another reason than those below
  2   the command line or the configuration is wrong
  3   done, with warnings: something was skipped or could not be kept
  4   not allowed, or the job was rejected
  5   not found: a source's path, a snapshot, a job, a schedule, a subscription, an object, a bucket
  6   the storage or the bus does not answer or said no
  7   the storage is full
  8   damaged data, or a tree that names a place outside the one given
  9   cancelled by somebody else
  10  no repository there, or one where none should be
  11  the repository is locked
  12  wrong password
  13  `snappy status`: a promise is broken, or a repository damaged
  130 interrupted (Ctrl-C)
"""
LOOKING = (snapshots, ls, find, cat, dump, diff, stats, mount)
SERVICES = (up, services, plugins, targets)
UPKEEP = (check, drill, drills, forget, prune, repair, copy, key)
GROUPS = (
    up,
    services,
    plugins,
    targets,
    backup,
    restore,
    *UPKEEP,
    *LOOKING,
    status,
    jobs,
    events,
    schedules,
    audit,
    keys,
)
OTHER_PACKAGE = "python-snappy"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the value is the exit code."""
    arguments = _parsed(sys.argv[1:] if argv is None else argv)
    _warn_of_other_package()
    try:
        try:
            return _run(arguments)
        except BaseException as error:
            return _failed(cause_of(error), as_json=arguments.json)
    except output.ReaderLeft:
        _leave_the_pipe()
        return 1


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    try:
        return _parser().parse_args(argv)
    except options.WrongCommandLine as wrong:
        if "--json" in argv:
            output.result(output.failure(wrong.error), "", as_json=True)
        raise


def _failed(error: BaseException, *, as_json: bool) -> int:
    if isinstance(error, (KeyboardInterrupt, asyncio.CancelledError)):
        error = Interrupted("interrupted")
    elif not isinstance(error, Exception) or isinstance(error, output.ReaderLeft):
        raise error
    elif not isinstance(error, SnappyError):
        log.get(__name__).error("unexpected error", exc_info=error)
        error = InternalError(f"unexpected {type(error).__name__}: {error}")
    output.fault(error, as_json=as_json)
    return error.exit_code


def _run(arguments: argparse.Namespace) -> int:
    log.setup_for_people(output.note, arguments.log_level or "warning")
    result: int = arguments.run(arguments)
    return result


def _parser() -> argparse.ArgumentParser:
    parser = options.Parser(
        prog="snappy",
        description="Backup and restore for edge and cloud, driven by NATS, in restic's open repository format.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"snappy {__version__}")
    options.common(parser, top=True)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for group in GROUPS:
        group.register(commands)
    version = options.command(commands, "version", "print the version")
    version.set_defaults(run=_version)
    return parser


def _version(arguments: argparse.Namespace) -> int:
    output.result({"version": __version__}, f"snappy {__version__}", as_json=arguments.json)
    return 0


def _warn_of_other_package() -> None:
    """Both import as ``snappy``: pip lets one overwrite the other's files without a word."""
    try:
        metadata.distribution(OTHER_PACKAGE)
    except metadata.PackageNotFoundError:
        return
    output.note(
        f"warning: {OTHER_PACKAGE} is installed beside Snappy and uses the same module name; install Snappy in a "
        f"virtual environment of its own (or with pipx), or `pip uninstall {OTHER_PACKAGE}` and reinstall snappy-backup"
    )


def _leave_the_pipe() -> None:
    """Who read our output went away; keep Python from complaining when it flushes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
