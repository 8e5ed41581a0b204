"""Every error that Snappy raises on purpose.

::

    SnappyError
    ├── UsageError                 the command line or the configuration is wrong
    ├── Rejected                   a job that will not be run
    │   ├── InvalidCommand         it does not validate
    │   ├── UnknownService         no source service or target has that name
    │   ├── UnknownKey             the source service has no key of that name
    │   └── Denied                 the caller may not ask, read or write that
    ├── StorageError               a filesystem said no (crosses the bus, keeps its kind)
    │   ├── NotFound
    │   │   └── BucketMissing      not even the place where objects are kept is there
    │   ├── AlreadyExists
    │   ├── AccessDenied
    │   ├── Corrupt                bytes are not what their name or checksum says
    │   ├── NoSpace
    │   └── Unavailable            try again later
    ├── RepositoryError
    │   ├── NotARepository
    │   ├── RepositoryExists
    │   ├── WrongPassword
    │   ├── RepositoryLocked
    │   ├── SnapshotNotFound
    │   ├── LastSnapshot           a policy would leave nothing of a group
    │   ├── KeyNotFound
    │   ├── KeyInUse               it opened the repository, so it stays
    │   └── Damaged                an object is missing or fails its authentication
    │       └── Unauthentic        it was changed, or sealed under another key
    ├── SourceError                a plug-in said no
    │   ├── UnknownPlugin
    │   ├── BadOptions
    │   ├── SourceMissing          what is to be backed up does not exist
    │   ├── SourceDenied           a server refuses the configured credentials, or they may not do that
    │   ├── SourceUnavailable      a server does not answer: try again later
    │   ├── ProgramMissing         a program that the plug-in needs is not installed
    │   ├── ProgramFailed          a program that the plug-in ran ended with an error
    │   ├── NotUndone              what a hook did before a backup was not undone
    │   └── UnsafePath             a tree tried to write outside the place given
    ├── BusError
    │   ├── BusUnavailable         no server, or nobody answered
    │   │   └── Garbled            a message was damaged on its way: ask again
    │   ├── BusFull                a stream is at its limit: slow down, try again
    │   ├── BusDenied              the server's permissions or its password check said no
    │   ├── TooLarge               a message that the server would not take
    │   ├── WrongSequence          a message was stored in between: read again, decide again
    │   ├── ClockSkew              the clocks of two services differ too much
    │   └── StreamMismatch         an operator's stream is not what Snappy needs
    ├── JobError
    │   ├── JobNotFound
    │   ├── ScheduleNotFound
    │   ├── SubscriptionNotFound
    │   ├── JobCancelled
    │   │   └── Replaced           a newer job took its place
    │   ├── DeadlinePassed
    │   ├── TimeLimitReached
    │   ├── AttemptOver            this attempt was replaced, or its grant ran out
    │   ├── QuorumMissed           too few of a backup's targets have it
    │   ├── AttemptLost            the service that ran it fell silent
    │   └── Interrupted            the process that ran the job ended
    ├── NotProven                  what a drill restored is not what was backed up
    ├── WorkerDied                 a process that helped with the work ended amid it
    └── InternalError              a bug of ours

A class carries ``code`` (stable, on the wire), ``exit_code``, ``retryable`` and a ``hint`` (what to do next); what it
does not say it inherits. Its docstring's first line is the default message.
"""

from __future__ import annotations

from typing import Any, ClassVar


class SnappyError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    hint: str = ""

    def __init_subclass__(cls, *, code: str = "", exit_code: int | None = None, retryable: bool | None = None) -> None:
        super().__init_subclass__()
        cls.code = code or cls.code
        cls.exit_code = cls.exit_code if exit_code is None else exit_code
        cls.retryable = cls.retryable if retryable is None else retryable

    def __init__(self, message: str = "", *, hint: str | None = None, **details: Any) -> None:
        self.message = message or (type(self).__doc__ or "").split("\n")[0]
        self.hint = self.hint if hint is None else hint
        self.details = details
        super().__init__(self.message)


class UsageError(SnappyError, code="usage", exit_code=2):
    """The command line or the configuration is wrong."""


class Rejected(SnappyError, code="rejected", exit_code=4):
    """The job will not be run."""


class InvalidCommand(Rejected, code="invalid-command"):
    """The command does not validate."""

    hint = "see schemas/ for the fields of each kind of job"


class UnknownService(Rejected, code="unknown-service"):
    """No service has that name."""

    hint = "`snappy services` lists those that are alive"


class UnknownKey(Rejected, code="unknown-key"):
    """The source service has no key of that name."""


class Duplicate(Rejected, code="duplicate"):
    """A job that does the same is not over."""


class Denied(Rejected, code="denied"):
    """The caller may not do that."""

    hint = "the source service's configuration lists what each submitter may ask"


class StorageError(SnappyError, code="storage", exit_code=6):
    """The storage said no."""


class NotFound(StorageError, code="not-found", exit_code=5):
    """There is no such object."""


class BucketMissing(NotFound, code="bucket-missing"):
    """The bucket does not exist."""

    hint = "create it, or correct the target's url"


class AlreadyExists(StorageError, code="already-exists"):
    """An object of that name exists."""


class AccessDenied(StorageError, code="access-denied", exit_code=4):
    """The storage or its policy does not allow that."""

    hint = "look at the target's rights, and at what its storage allows it"


class Corrupt(StorageError, code="corrupt", exit_code=8, retryable=True):
    """The bytes are not what their name or checksum says."""


class NoSpace(StorageError, code="no-space", exit_code=7):
    """The storage is full."""

    hint = "free space on the target, or prune it"


class Unavailable(StorageError, code="unavailable", retryable=True):
    """The storage does not answer."""

    hint = "look at the storage, and at the log of the target service"


class RepositoryError(SnappyError, code="repository"):
    """The repository cannot be used."""


class NotARepository(RepositoryError, code="not-a-repository", exit_code=10):
    """There is no repository at that place."""

    hint = "check the place; `snappy init`, or `snappy backup --init`, makes a repository"


class RepositoryExists(RepositoryError, code="repository-exists", exit_code=10):
    """A repository exists at that place."""

    hint = "use it as it is, or name another place"


class WrongPassword(RepositoryError, code="wrong-password", exit_code=12):
    """No key of the repository opens with that password."""

    hint = "check the password, and that this is the repository you mean"


class RepositoryLocked(RepositoryError, code="locked", exit_code=11, retryable=True):
    """Somebody else holds a lock on the repository."""

    hint = "wait for the other program; `restic unlock` removes locks of programs that died"


class SnapshotNotFound(RepositoryError, code="snapshot-not-found", exit_code=5):
    """No snapshot matches."""

    hint = "`snappy snapshots` lists them"


class LastSnapshot(RepositoryError, code="last-snapshot"):
    """The policy would remove all snapshots of a group."""

    hint = "look at it with --dry-run; to remove the last one too, name it by its id"


class KeyNotFound(RepositoryError, code="key-not-found", exit_code=5):
    """No key of the repository matches, or several do."""

    hint = "`snappy key list` lists them"


class KeyInUse(RepositoryError, code="key-in-use"):
    """The key is the one that opened the repository, which stays."""

    hint = "to remove it, name the key of another password with --key; `snappy key change` puts another in its place"


class Damaged(RepositoryError, code="damaged", exit_code=8):
    """An object of the repository is missing or fails its authentication."""

    hint = "`snappy check --read-data` on the same repository says what is damaged"


class Unauthentic(Damaged, code="unauthentic"):
    """The bytes fail their authentication: they were changed, or sealed under another key."""


class SourceError(SnappyError, code="source"):
    """The source cannot be read or written."""


class UnknownPlugin(SourceError, code="unknown-plugin", exit_code=4):
    """No source plug-in has that name."""


class BadOptions(SourceError, code="bad-options", exit_code=4):
    """The options do not fit the plug-in's schema."""

    hint = "`snappy plugins show` lists a plug-in's options"


class SourceMissing(SourceError, code="source-missing", exit_code=5):
    """What is to be backed up does not exist."""

    hint = "check the path; it is looked for where the source service runs"


class SourceDenied(SourceError, code="source-denied", exit_code=4):
    """What is to be backed up refuses the configured credentials."""

    hint = "see the plug-in's settings at the source service, and what its user may do there"


class SourceUnavailable(SourceError, code="source-unavailable", exit_code=6, retryable=True):
    """What is to be backed up does not answer."""


class ProgramMissing(SourceError, code="program-missing", exit_code=2):
    """A program that the plug-in needs is not installed."""


class ProgramFailed(SourceError, code="program-failed"):
    """A program that the plug-in ran ended with an error."""


class NotUndone(SourceError, code="not-undone"):
    """What was done before the backup could not be undone."""


class UnsafePath(SourceError, code="unsafe-path", exit_code=8):
    """The tree names a place outside the one given."""


class BusError(SnappyError, code="bus", exit_code=6):
    """The message bus cannot be used."""


class BusUnavailable(BusError, code="bus-unavailable", retryable=True):
    """No NATS server, or nobody who answers."""


class BusDenied(BusError, code="bus-denied", exit_code=4):
    """The NATS server's permissions do not allow that."""

    hint = "compare the user's permissions with deploy/nats.conf"


class Garbled(BusUnavailable, code="garbled"):
    """A message was damaged on its way."""

    hint = "with TLS (nats.tls_ca) the connection itself notices that"


class BusFull(BusError, code="bus-full", exit_code=7, retryable=True):
    """A stream is full, or has no disk left."""

    hint = "try again later; if it stays, look at the streams' limits and at the NATS server's disk"


class TooLarge(BusError, code="too-large", exit_code=2):
    """The message is larger than the NATS server takes."""

    hint = "raise max_payload of the NATS server, or send less"


class WrongSequence(BusError, code="wrong-sequence"):
    """Another message was stored on that subject in between."""


class ClockSkew(BusError, code="clock-skew"):
    """The clocks of two services differ by more than grants allow."""

    hint = "synchronise the clocks of all machines, for example with chrony"


class StreamMismatch(BusError, code="stream-mismatch", exit_code=2):
    """A stream or bucket exists with another configuration."""


class JobError(SnappyError, code="job"):
    """The job did not succeed."""


class JobNotFound(JobError, code="job-not-found", exit_code=5):
    """There is no such job."""

    hint = "`snappy jobs list` shows yours"


class ScheduleNotFound(JobError, code="schedule-not-found", exit_code=5):
    """There is no such schedule."""

    hint = "`snappy schedule list` shows yours"


class SubscriptionNotFound(JobError, code="subscription-not-found", exit_code=5):
    """You are not subscribed to events."""

    hint = "`snappy events subscribe` has them kept for you from then on"


class JobCancelled(JobError, code="cancelled", exit_code=9):
    """The job was cancelled."""


class Replaced(JobCancelled, code="replaced"):
    """A newer job of the same kind took its place."""


class DeadlinePassed(JobError, code="deadline"):
    """The job was not over at its deadline."""

    hint = "give it a later deadline, or look why it waited: `snappy jobs show`"


class TimeLimitReached(JobError, code="time-limit"):
    """An attempt took longer than the job's time limit."""


class AttemptOver(JobError, code="attempt-over"):
    """This attempt at the job is over."""


class AttemptLost(JobError, code="attempt-lost", retryable=True):
    """The service that ran the attempt fell silent."""

    hint = "look whether the source service runs, and at its log"


class QuorumMissed(JobError, code="quorum-missed", exit_code=6):
    """Too few of the backup's targets have it."""

    hint = "look at the targets that are named; those that are behind still get it, `snappy jobs show` says when"


class Interrupted(JobError, code="interrupted", exit_code=130, retryable=True):
    """The process that ran the job ended."""


class WorkerDied(SnappyError, code="worker-died", retryable=True):
    """A process that helped with the work ended amid it."""

    hint = "look whether the machine ran out of memory; with `workers = 1` a source service needs less"


class NotProven(SnappyError, code="not-proven", exit_code=8):
    """What was restored is not what was backed up."""

    hint = "the repository is whole as far as it was read; look at the log of the source service, and at its disk"


class InternalError(SnappyError, code="internal"):
    """A bug in Snappy."""

    hint = "please report it with the log of the service"
