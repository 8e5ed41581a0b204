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
    │   └── Damaged                an object is missing or fails its authentication
    │       └── Unauthentic        it was changed, or sealed under another key
    ├── SourceError                a plug-in said no
    │   ├── UnknownPlugin
    │   ├── BadOptions
    │   ├── SourceMissing          what is to be backed up does not exist
    │   └── UnsafePath             a tree tried to write outside the place given
    ├── BusError
    │   ├── BusUnavailable         no server, or nobody answered
    │   ├── BusFull                a stream is at its limit: slow down, try again
    │   ├── BusDenied              the server's permissions or its password check said no
    │   ├── TooLarge               a message that the server would not take
    │   ├── WrongSequence          a message was stored in between: read again, decide again
    │   ├── ClockSkew              the clocks of two services differ too much
    │   └── StreamMismatch         an operator's stream is not what Snappy needs
    ├── JobError
    │   ├── JobNotFound
    │   ├── ScheduleNotFound
    │   ├── JobCancelled
    │   │   └── Replaced           a newer job took its place
    │   ├── DeadlinePassed
    │   ├── TimeLimitReached
    │   ├── AttemptOver            this attempt was replaced, or its grant ran out
    │   ├── AttemptLost            the service that ran it fell silent
    │   └── Interrupted            the process that ran the job ended
    └── InternalError              a bug of ours

A class carries what does not depend on the case: ``code`` (stable, on the wire), ``exit_code``, ``retryable``
and a ``hint`` (what to do next). Its docstring's first line is the default message.
"""

from __future__ import annotations

from typing import Any, ClassVar


class SnappyError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    hint: str = ""

    def __init__(self, message: str = "", *, hint: str | None = None, **details: Any) -> None:
        self.message = message or (type(self).__doc__ or "").split("\n")[0]
        if hint is not None:
            self.hint = hint
        self.details = details
        super().__init__(self.message)


class UsageError(SnappyError):
    """The command line or the configuration is wrong."""

    code = "usage"
    exit_code = 2


class Rejected(SnappyError):
    """The job will not be run."""

    code = "rejected"
    exit_code = 4


class InvalidCommand(Rejected):
    """The command does not validate."""

    code = "invalid-command"
    hint = "see schemas/ for the fields of each kind of job"


class UnknownService(Rejected):
    """No service has that name."""

    code = "unknown-service"
    hint = "`snappy services` lists those that are alive"


class UnknownKey(Rejected):
    """The source service has no key of that name."""

    code = "unknown-key"


class Duplicate(Rejected):
    """A job that does the same is not over."""

    code = "duplicate"


class Denied(Rejected):
    """The caller may not do that."""

    code = "denied"
    hint = "the source service's configuration lists what each submitter may ask"


class StorageError(SnappyError):
    """The storage said no."""

    code = "storage"
    exit_code = 6


class NotFound(StorageError):
    """There is no such object."""

    code = "not-found"
    exit_code = 5


class BucketMissing(NotFound):
    """The bucket does not exist."""

    code = "bucket-missing"
    hint = "create it, or correct the target's url"


class AlreadyExists(StorageError):
    """An object of that name exists."""

    code = "already-exists"


class AccessDenied(StorageError):
    """The storage or its policy does not allow that."""

    code = "access-denied"
    exit_code = 4


class Corrupt(StorageError):
    """The bytes are not what their name or checksum says."""

    code = "corrupt"
    exit_code = 8
    retryable = True


class NoSpace(StorageError):
    """The storage is full."""

    code = "no-space"
    exit_code = 7
    hint = "free space on the target, or prune it"


class Unavailable(StorageError):
    """The storage does not answer."""

    code = "unavailable"
    retryable = True


class RepositoryError(SnappyError):
    """The repository cannot be used."""

    code = "repository"


class NotARepository(RepositoryError):
    """There is no repository at that place."""

    code = "not-a-repository"
    exit_code = 10
    hint = "run `snappy init`, or give `--init`"


class RepositoryExists(RepositoryError):
    """A repository exists at that place."""

    code = "repository-exists"
    exit_code = 10


class WrongPassword(RepositoryError):
    """No key of the repository opens with that password."""

    code = "wrong-password"
    exit_code = 12


class RepositoryLocked(RepositoryError):
    """Somebody else holds a lock on the repository."""

    code = "locked"
    exit_code = 11
    retryable = True
    hint = "wait for the other program; `restic unlock` removes locks of programs that died"


class SnapshotNotFound(RepositoryError):
    """No snapshot matches."""

    code = "snapshot-not-found"
    exit_code = 5
    hint = "`snappy snapshots` lists them"


class Damaged(RepositoryError):
    """An object of the repository is missing or fails its authentication."""

    code = "damaged"
    exit_code = 8


class Unauthentic(Damaged):
    """The bytes fail their authentication: they were changed, or sealed under another key."""

    code = "unauthentic"


class SourceError(SnappyError):
    """The source cannot be read or written."""

    code = "source"


class UnknownPlugin(SourceError):
    """No source plug-in has that name."""

    code = "unknown-plugin"
    exit_code = 4


class BadOptions(SourceError):
    """The options do not fit the plug-in's schema."""

    code = "bad-options"
    exit_code = 4


class SourceMissing(SourceError):
    """What is to be backed up does not exist."""

    code = "source-missing"
    exit_code = 5


class UnsafePath(SourceError):
    """The tree names a place outside the one given."""

    code = "unsafe-path"
    exit_code = 8


class BusError(SnappyError):
    """The message bus cannot be used."""

    code = "bus"
    exit_code = 6


class BusUnavailable(BusError):
    """No NATS server, or nobody who answers."""

    code = "bus-unavailable"
    retryable = True


class BusDenied(BusError):
    """The NATS server's permissions do not allow that."""

    code = "bus-denied"
    exit_code = 4
    hint = "compare the user's permissions with deploy/nats.conf"


class BusFull(BusError):
    """A stream is full, or has no disk left."""

    code = "bus-full"
    exit_code = 7
    retryable = True
    hint = "try again later; if it stays, look at the streams' limits and at the NATS server's disk"


class TooLarge(BusError):
    """The message is larger than the NATS server takes."""

    code = "too-large"
    exit_code = 2
    hint = "raise max_payload of the NATS server, or send less"


class WrongSequence(BusError):
    """Another message was stored on that subject in between."""

    code = "wrong-sequence"


class ClockSkew(BusError):
    """The clocks of two services differ by more than grants allow."""

    code = "clock-skew"
    hint = "synchronise the clocks of all machines, for example with chrony"


class StreamMismatch(BusError):
    """A stream or bucket exists with another configuration."""

    code = "stream-mismatch"
    exit_code = 2


class JobError(SnappyError):
    """The job did not succeed."""

    code = "job"


class JobNotFound(JobError):
    """There is no such job."""

    code = "job-not-found"
    exit_code = 5


class ScheduleNotFound(JobError):
    """There is no such schedule."""

    code = "schedule-not-found"
    exit_code = 5
    hint = "`snappy schedule list` shows yours"


class JobCancelled(JobError):
    """The job was cancelled."""

    code = "cancelled"
    exit_code = 9


class Replaced(JobCancelled):
    """A newer job of the same kind took its place."""

    code = "replaced"


class DeadlinePassed(JobError):
    """The job was not over at its deadline."""

    code = "deadline"
    hint = "give it a later deadline, or look why it waited: `snappy jobs show`"


class TimeLimitReached(JobError):
    """An attempt took longer than the job's time limit."""

    code = "time-limit"


class AttemptOver(JobError):
    """This attempt at the job is over."""

    code = "attempt-over"


class AttemptLost(JobError):
    """The service that ran the attempt fell silent."""

    code = "attempt-lost"
    retryable = True


class Interrupted(JobError):
    """The process that ran the job ended."""

    code = "interrupted"
    exit_code = 130
    retryable = True


class InternalError(SnappyError):
    """A bug in Snappy."""

    code = "internal"
    hint = "please report it with the log of the service"


def _descendants(kind: type[SnappyError]) -> list[type[SnappyError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in _descendants(child))]


BY_CODE: dict[str, type[SnappyError]] = {kind.code: kind for kind in _descendants(SnappyError)}


def from_code(code: str, message: str, hint: str = "") -> SnappyError:
    """The error that another process named; an unknown code becomes a plain :class:`SnappyError`."""
    return BY_CODE.get(code, SnappyError)(message, hint=hint or None)
