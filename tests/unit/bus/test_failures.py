from __future__ import annotations

import errno

import pytest

from snappy import error_codes, errors
from snappy.bus.failures import Failure, from_wire, to_wire

SECRETS = ("/srv/vault", "AKIAEXAMPLE", "s3.internal.example", "hunter2")


class StoreError(Exception):
    """Shaped as botocore's ClientError."""

    def __init__(self, code: str) -> None:
        super().__init__(f"{code} at https://s3.internal.example/ for AKIAEXAMPLE")
        self.response = {"Error": {"Code": code, "Message": "hunter2"}}


def rewritten(code: str) -> OSError:
    """As s3fs does: an OSError whose cause is the store's."""
    error = OSError(errno.EINVAL, f"{code} https://s3.internal.example")
    error.__cause__ = StoreError(code)
    return error


class NoCredentialsError(Exception):
    """Named as botocore's, and of its module."""

    __module__ = "botocore.exceptions"


CASES = [
    (FileNotFoundError(errno.ENOENT, "no", "/srv/vault/x"), errors.NotFound, FileNotFoundError),
    (FileNotFoundError("/srv/vault/x"), errors.NotFound, FileNotFoundError),
    (NotADirectoryError(errno.ENOTDIR, "no", "/srv/vault/x"), errors.NotFound, FileNotFoundError),
    (FileExistsError("/srv/vault/x"), errors.AlreadyExists, FileExistsError),
    (PermissionError(errno.EACCES, "no", "/srv/vault/x"), errors.AccessDenied, PermissionError),
    (OSError(errno.EROFS, "read-only", "/srv/vault/x"), errors.AccessDenied, PermissionError),
    (OSError(errno.ENOSPC, "full", "/srv/vault/x"), errors.NoSpace, Exception),
    (OSError(errno.EDQUOT, "quota", "/srv/vault/x"), errors.NoSpace, Exception),
    (OSError(errno.EIO, "disk", "/srv/vault/x"), errors.Unavailable, Exception),
    (TimeoutError("s3.internal.example"), errors.Unavailable, Exception),
    (ConnectionRefusedError("s3.internal.example"), errors.Unavailable, Exception),
    (rewritten("NoSuchKey"), errors.NotFound, FileNotFoundError),
    (rewritten("PreconditionFailed"), errors.AlreadyExists, FileExistsError),
    (rewritten("AccessDenied"), errors.AccessDenied, PermissionError),
    (rewritten("InvalidAccessKeyId"), errors.AccessDenied, PermissionError),
    (NoCredentialsError("hunter2"), errors.AccessDenied, PermissionError),
    (rewritten("BadDigest"), errors.Corrupt, Exception),
    (rewritten("QuotaExceeded"), errors.NoSpace, Exception),
    (rewritten("SlowDown"), errors.Unavailable, Exception),
    (StoreError("InternalError"), errors.Unavailable, Exception),
    (IsADirectoryError("/srv/vault/x"), errors.StorageError, IsADirectoryError),
    (OSError(errno.ENOTEMPTY, "full", "/srv/vault/x"), errors.StorageError, OSError),
    (NotImplementedError("/srv/vault/x"), errors.StorageError, Exception),
    (ValueError("hunter2 in /srv/vault"), errors.InternalError, Exception),
]


@pytest.mark.parametrize(("error", "ours", "theirs"), CASES, ids=lambda case: getattr(case, "__name__", repr(case)))
def test_an_error_keeps_its_kind_and_loses_all_that_is_the_server_s(
    error: Exception, ours: type[Exception], theirs: type[Exception]
) -> None:
    failure = to_wire(error, "data/ab/abcd")
    arrived = from_wire(failure)
    assert isinstance(arrived, ours)
    assert isinstance(arrived, theirs)
    assert not any(secret in failure.message + failure.hint for secret in SECRETS)


@pytest.mark.parametrize(
    "kind", sorted(error_codes.BY_CODE.values(), key=lambda kind: kind.code), ids=lambda kind: kind.code
)
def test_our_own_errors_cross_whole(kind: type[errors.SnappyError]) -> None:
    arrived = from_wire(to_wire(kind("what happened", hint="what to do")))
    assert isinstance(arrived, kind)
    assert (arrived.message, arrived.hint, str(arrived)) == ("what happened", "what to do", "what happened")


def test_an_error_that_is_its_own_cause_is_looked_through_once() -> None:
    first, second = OSError(errno.EIO, "disk"), ValueError()
    first.__cause__, second.__cause__ = second, first
    assert to_wire(first, "x").code == "unavailable"
    first.__cause__ = first
    assert to_wire(first, "x").code == "unavailable"


def test_a_missing_bucket_is_told_from_a_missing_object() -> None:
    assert "bucket" in to_wire(rewritten("NoSuchBucket"), "config").message
    assert "'config'" in to_wire(rewritten("NoSuchKey"), "config").message


def test_an_unknown_code_is_an_error_still() -> None:
    arrived = from_wire(Failure("invented-later", "something new"))
    assert (type(arrived), arrived.message) == (errors.SnappyError, "something new")
