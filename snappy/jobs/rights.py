"""What a worker may do at a target for the job that it holds, and who may have anything deleted there.

A grant holds the right to delete for jobs of few kinds alone, only if they are no dry runs, and only for submitters
that the core's configuration names. A target may have such jobs wait, announced, for some hours.
"""

from __future__ import annotations

from snappy.bus.grants import DELETE, RIGHTS_BACKUP, RIGHTS_READ
from snappy.config import Core, Deletion
from snappy.errors import Denied
from snappy.jobs.command import Command
from snappy.jobs.messages import JobRecord

RIGHTS = {
    "init": RIGHTS_BACKUP,
    "backup": RIGHTS_BACKUP,
    "restore": RIGHTS_READ,
    "check": RIGHTS_BACKUP,
    "forget": RIGHTS_BACKUP,
    "prune": RIGHTS_BACKUP,
    "repair": RIGHTS_BACKUP,
}
"""By kind of job; a check writes its lock, without which a prune could delete what it is about to read."""
DELETING = frozenset({"forget", "prune", "repair"})
"""These may delete as well, unless they are dry runs."""
HOUR = 3600.0


def rights_of(record: JobRecord, settings: Core) -> str:
    """The letters of the grant. Who may not have anything deleted any more gets none for it."""
    rights = RIGHTS[record.kind]
    dry = bool(record.command.get("dry_run"))
    if record.kind in DELETING and not dry and _may_delete(record.submitter, record.command["target"], settings):
        return rights + DELETE
    return rights


def check_deletion(kind: str, command: Command, submitter: str, settings: Core) -> None:
    """Raises Denied where the command deletes, and the submitter may not have that done at its target."""
    if _deletes(kind, command) and not _may_delete(submitter, command.target, settings):
        raise Denied(
            f"{submitter} may have nothing deleted at the target {command.target!r}",
            hint="the core's configuration lists who may, as may_delete",
        )


def delay(kind: str, command: Command, settings: Core) -> float:
    """Seconds that the job has to wait, announced."""
    return _rules(command.target, settings).delete_after * HOUR if _deletes(kind, command) else 0.0


def _deletes(kind: str, command: Command) -> bool:
    return kind in DELETING and not getattr(command, "dry_run", False)


def _may_delete(submitter: str, target: str, settings: Core) -> bool:
    return submitter in settings.may_delete or submitter in _rules(target, settings).may_delete


def _rules(target: str, settings: Core) -> Deletion:
    return settings.targets.get(target, Deletion())
