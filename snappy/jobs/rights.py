"""What a worker may do at a target for the job that it holds, and who may have anything deleted there.

A grant holds the right to delete for jobs of few kinds alone, only if they are no dry runs, and only for submitters
that the core's configuration names. A target may have such jobs wait, announced, for some hours.
"""

from __future__ import annotations

from typing import Any

from snappy.bus.grants import DELETE, RIGHTS_BACKUP, RIGHTS_READ
from snappy.config import Core, Deletion
from snappy.errors import Denied
from snappy.jobs.command import Command
from snappy.jobs.messages import JobRecord

RIGHTS = {
    "init": RIGHTS_BACKUP,
    "backup": RIGHTS_BACKUP,
    "restore": RIGHTS_READ,
    "drill": RIGHTS_READ,
    "check": RIGHTS_BACKUP,
    "forget": RIGHTS_BACKUP,
    "prune": RIGHTS_BACKUP,
    "repair": RIGHTS_BACKUP,
    "copy": RIGHTS_BACKUP,
    "key": RIGHTS_BACKUP,
}
"""By kind of job; a check writes its lock, without which a prune could delete what it is about to read."""
SNAPSHOTS, DATA = ("snapshots/",), ("index/", "data/")
DELETES = {"forget": SNAPSHOTS, "prune": DATA, "repair": (), "key": ()}
"""What the kinds that delete may, unless they are dry runs. Never the configuration of a repository."""
REPAIRS = {"index": ("index/",), "packs": DATA, "snapshots": SNAPSHOTS}
"""What a repair may, by ``what`` it repairs."""
KEYS = "keys/"
USED_UP = frozenset({"remove", "change"})
"""What is done to keys that ends with one fewer."""
USEFUL_WITHOUT = frozenset({"repair"})
"""These do part of their work where they may delete nothing, and say what stays."""
HOUR = 3600.0


def rights_of(record: JobRecord, settings: Core) -> str:
    """The letters of the grant. Who may not have anything deleted any more gets none for it, nor does a job that was
    announced for fewer hours than its target asks for by now."""
    rules, asked = _rules(record.command["target"], settings), record.command
    deletes = _deletes(record.kind, asked.get("dry_run", False), asked.get("action", ""))
    if not deletes or record.delay < rules.delete_after * HOUR:
        return RIGHTS[record.kind]
    objection = _objection(record.submitter, record.source, rules, settings)
    return RIGHTS[record.kind] if objection else RIGHTS[record.kind] + DELETE


def deletes_of(record: JobRecord) -> tuple[str, ...]:
    """How the paths of what the job may delete begin."""
    if record.kind == "key":
        return _keys(record.command)
    found = DELETES.get(record.kind, ())
    more = DATA if record.command.get("prune") else REPAIRS.get(record.command.get("what", ""), ())
    return (*found, *more)


def _keys(command: dict[str, Any]) -> tuple[str, ...]:
    """Who removes a key may remove that one alone. Which one a change ends, only who has the password knows."""
    if command["action"] not in USED_UP:
        return ()
    return (KEYS + (command["id"] or ""),)


def check_deletion(kind: str, command: Command, submitter: str, settings: Core) -> None:
    """Raises Denied where the command deletes, and the submitter may not have that done at its target."""
    if not _would_delete(kind, command) or kind in USEFUL_WITHOUT:
        return
    objection = _objection(submitter, command.source, _rules(command.target, settings), settings)
    if objection:
        hint = "the core's configuration says who may have what deleted"
        raise Denied(f"{objection} at the target {command.target!r}", hint=hint)


def delay(kind: str, command: Command, submitter: str, settings: Core) -> float:
    """Seconds that the job has to wait, announced. One that can delete nothing waits for nothing."""
    rules = _rules(command.target, settings)
    if not _would_delete(kind, command) or _objection(submitter, command.source, rules, settings):
        return 0.0
    return rules.delete_after * HOUR


def is_keepers(caller: str, record: JobRecord, settings: Core) -> bool:
    """Whether it is a job that deletes, at a target where ``caller`` may have things deleted: such callers see, and may
    put an end to, each other's."""
    return record.kind in DELETES and _may_delete(caller, _rules(record.command.get("target", ""), settings), settings)


def _would_delete(kind: str, command: Command) -> bool:
    return _deletes(kind, getattr(command, "dry_run", False), getattr(command, "action", ""))


def _deletes(kind: str, dry_run: bool, action: str) -> bool:
    return kind in DELETES and not dry_run and (kind != "key" or action in USED_UP)


def _objection(submitter: str, source: str, rules: Deletion, settings: Core) -> str:
    if not _may_delete(submitter, rules, settings):
        return f"{submitter} may have nothing deleted"
    if rules.sources and source not in rules.sources:
        return f"the source service {source!r} may delete nothing"
    return ""


def _may_delete(submitter: str, rules: Deletion, settings: Core) -> bool:
    return submitter in settings.may_delete or submitter in rules.may_delete


def _rules(target: str, settings: Core) -> Deletion:
    return settings.targets.get(target, Deletion())
