"""Errors of a filesystem on their way over the bus: one function out, one function back.

What leaves a target is a code, a sentence and a hint. The sentence names the path as the caller gave it; it never
holds a path of the server, the address of a bucket or a credential. What arrives is an error of
:mod:`snappy.errors` that is also the ``OSError`` which users of fsspec expect.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import msgspec

from snappy.error_codes import from_code
from snappy.errors import (
    AccessDenied,
    AlreadyExists,
    Corrupt,
    InternalError,
    NoSpace,
    NotFound,
    SnappyError,
    StorageError,
    Unavailable,
)


class Failure(msgspec.Struct, frozen=True):
    """An error on the wire."""

    code: str
    message: str
    hint: str = ""


class MissingFile(NotFound, FileNotFoundError):
    """There is no such object."""


class ExistingFile(AlreadyExists, FileExistsError):
    """An object of that name exists."""


class RefusedFile(AccessDenied, PermissionError):
    """The storage or its policy does not allow that."""


class DirectoryInTheWay(StorageError, IsADirectoryError):
    """That is a directory."""

    code = "is-directory"


class NotEmpty(StorageError, OSError):
    """The directory is not empty."""

    code = "not-empty"


_FILE_ERRORS: dict[str, type[SnappyError]] = {
    kind.code: kind for kind in (MissingFile, ExistingFile, RefusedFile, DirectoryInTheWay, NotEmpty)
}

_BY_ERRNO: dict[int, type[SnappyError]] = {
    errno.ENOENT: MissingFile,
    errno.ENOTDIR: MissingFile,
    errno.EEXIST: ExistingFile,
    errno.EACCES: RefusedFile,
    errno.EPERM: RefusedFile,
    errno.EROFS: RefusedFile,
    errno.EISDIR: DirectoryInTheWay,
    errno.ENOTEMPTY: NotEmpty,
    errno.ENOSPC: NoSpace,
    errno.EDQUOT: NoSpace,
}

_BY_CLASS: tuple[tuple[type[BaseException], type[SnappyError]], ...] = (
    (NotADirectoryError, MissingFile),
    (FileNotFoundError, MissingFile),
    (FileExistsError, ExistingFile),
    (IsADirectoryError, DirectoryInTheWay),
    (PermissionError, RefusedFile),
    (TimeoutError, Unavailable),
    (OSError, Unavailable),
    (NotImplementedError, StorageError),
)

_BY_STORE_CODE: dict[str, type[SnappyError]] = {
    "404": MissingFile,
    "NoSuchKey": MissingFile,
    "PreconditionFailed": ExistingFile,
    "ConditionalRequestConflict": ExistingFile,
    "412": ExistingFile,
    "403": RefusedFile,
    "AccessDenied": RefusedFile,
    "InvalidAccessKeyId": RefusedFile,
    "SignatureDoesNotMatch": RefusedFile,
    "InvalidStorageClass": StorageError,
    "InvalidArgument": StorageError,
    "InvalidRequest": StorageError,
    "BadDigest": Corrupt,
    "XAmzContentSHA256Mismatch": Corrupt,
    "InsufficientStorage": NoSpace,
    "QuotaExceeded": NoSpace,
    "507": NoSpace,
}

_NO_CREDENTIALS = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "ProfileNotFound",
    "DefaultCredentialsError",
)
"""What the S3 and Google libraries raise before they ask a server; by name, since none of them need be installed."""
_CREDENTIALS_HINT = "give them in the target's storage_options, or where its service runs (for S3: AWS_ACCESS_KEY_ID)"

_SENTENCES: dict[type[SnappyError], str] = {
    MissingFile: "there is no object {path!r}",
    ExistingFile: "an object {path!r} exists",
    RefusedFile: "the storage refused access to {path!r}",
    DirectoryInTheWay: "{path!r} is a directory",
    NotEmpty: "the directory {path!r} is not empty",
    NoSpace: "the storage has no space for {path!r}",
    Corrupt: "the storage found the bytes of {path!r} damaged",
    Unavailable: "the storage did not answer for {path!r}",
    StorageError: "the storage cannot do that with {path!r}",
}


def to_wire(error: BaseException, path: str = "") -> Failure:
    """The failure that stands for ``error``, which happened to the caller's ``path``."""
    known = error if isinstance(error, SnappyError) else translate(error, path)
    return Failure(known.code, known.message, known.hint)


def from_wire(failure: Failure) -> SnappyError:
    """The error that the other side meant."""
    kind = _FILE_ERRORS.get(failure.code)
    if kind is None:
        return from_code(failure.code, failure.message, failure.hint)
    return kind(failure.message, hint=failure.hint or None)


def translate(error: BaseException, path: str) -> SnappyError:
    """One of our errors for any exception of a filesystem, with a sentence that tells nothing of the server."""
    if store_code(error) == "NoSuchBucket":
        return MissingFile("the bucket of the target does not exist", hint="create it, or correct the target's url")
    if _has_no_credentials(error):
        return RefusedFile("the target has no credentials for its storage", hint=_CREDENTIALS_HINT)
    kind = _kind(error)
    if kind is InternalError:
        return InternalError("the target failed while it served that", hint="the target's log says why")
    return kind(_SENTENCES[kind].format(path=path))


def store_code(error: BaseException) -> str:
    """What an S3 server called it, found along the chain of causes; empty where there is none."""
    for link in _causes(error):
        response: Any = getattr(link, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, its cause, and so on. A chain may bite its tail: s3fs raises errors that are their own cause."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__


def _kind(error: BaseException) -> type[SnappyError]:
    if (code := store_code(error)) in _BY_STORE_CODE:
        return _BY_STORE_CODE[code]
    if isinstance(error, OSError) and error.errno in _BY_ERRNO:
        return _BY_ERRNO[error.errno]
    if code or _is_network(error):
        return Unavailable
    return next((ours for theirs, ours in _BY_CLASS if isinstance(error, theirs)), InternalError)


def _has_no_credentials(error: BaseException) -> bool:
    return any(type(link).__name__ in _NO_CREDENTIALS for link in _causes(error))


def _is_network(error: BaseException) -> bool:
    """Whether an HTTP library raised it; asked by module name, since none of them need be installed."""
    return any(kind.__module__.split(".")[0] in ("botocore", "aiohttp") for kind in type(error).__mro__)
