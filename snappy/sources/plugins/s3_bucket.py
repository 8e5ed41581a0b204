"""A bucket of an S3 server: what its objects are beside their content, how they are read and written.

Requests go through s3fs, which has the credentials and the retries; it is asked for single S3 operations where its own
ones say less than the server does.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote, urlencode

import fsspec.asyn
import msgspec
from msgspec import Meta

from snappy import secrets
from snappy.config import Secret
from snappy.errors import BadOptions, ProgramMissing, SourceDenied, SourceMissing, SourceUnavailable, UsageError
from snappy.sources.site import Site
from snappy.targets.opening import open_storage

PLUGIN = "s3"
AT_ONCE = 16
"""Requests about objects that go on beside each other."""
ATTEMPTS = 3
PREFIX = b"user.s3."
HEADER, USER, TAG = PREFIX, PREFIX + b"meta.", PREFIX + b"tag."
DELETED = PREFIX + b"delete-marker"
HEADERS = {
    "ContentType": b"content-type",
    "CacheControl": b"cache-control",
    "ContentDisposition": b"content-disposition",
    "ContentEncoding": b"content-encoding",
    "ContentLanguage": b"content-language",
    "ExpiresString": b"expires",
    "StorageClass": b"storage-class",
    "WebsiteRedirectLocation": b"website-redirect-location",
}
"""By their names in what S3 answers, those that are kept."""
ASKED = {name: "Expires" if name == "ExpiresString" else name for name in HEADERS}
"""The same in a request."""
NO_TAGS = (errno.ENOSYS, errno.EPERM)
"""What a server says that has no tags, as s3fs puts it."""

Answer = dict[str, Any]
About = tuple[Answer, dict[bytes, bytes]]


class S3Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where an S3 server is, and as whom to go there."""

    endpoint: Annotated[str, Meta(description="its URL; empty: Amazon's")] = ""
    region: Annotated[str, Meta(description="its region; empty: the environment's")] = ""
    key: Annotated[str, Meta(description="the access key's id; empty: as the environment says")] = ""
    secret: Annotated[Secret | None, Meta(description="where the access key's secret is found")] = None

    def options(self) -> dict[str, Any]:
        """As s3fs has them."""
        region = {"client_kwargs": {"region_name": self.region}} if self.region else {}
        endpoint = {"endpoint_url": self.endpoint} if self.endpoint else {}
        secret = {"secret": secrets.read(self.secret)} if self.secret else {}
        return {**({"key": self.key} if self.key else {}), **secret, **endpoint, **region}


class Version(NamedTuple):
    """One that an object had, or a mark that it was deleted."""

    key: str
    id: str
    info: Answer
    deleted: bool


class Bucket:
    """The bucket of that name at the server that the settings of that name describe."""

    def __init__(self, site: Site, server: str, name: str) -> None:
        self.name = name
        settings: S3Settings = site.settings(PLUGIN, S3Settings, server)
        try:
            self.fs: Any = open_storage(f"s3://{name}", settings.options())[0]
        except UsageError as error:
            raise ProgramMissing(error.message, hint="pip install 'snappy-backup[s3]'") from error

    def require(self) -> None:
        """Raises :class:`SourceMissing`, :class:`SourceDenied` and :class:`SourceUnavailable`."""
        self.call("list_objects_v2", MaxKeys=1)

    def require_versions(self) -> None:
        """Raises :class:`BadOptions` where the bucket does not keep what is overwritten."""
        if self.call("get_bucket_versioning").get("Status") != "Enabled":
            raise BadOptions(
                f"the bucket {self.name} keeps no versions",
                hint="enable them, or restore without `versions`, or with `overwrite: true`",
            )

    def call(self, operation: str, **arguments: Any) -> Answer:
        """One operation of S3. Raises as :meth:`require`."""
        with explained(self.name):
            answer: Answer = self.fs.call_s3(operation, Bucket=self.name, **arguments)
        return answer

    def about(self, objects: Sequence[tuple[str, str]], *, tags: bool) -> list[About | Exception]:
        """Of each object, a key and a version or nothing, what ``head_object`` says, and that as extended attributes;
        or why it cannot be had."""
        found: list[About | Exception] = fsspec.asyn.sync(self.fs.loop, self._about_all, objects, tags)
        return found

    async def _about_all(self, objects: Sequence[tuple[str, str]], tags: bool) -> list[Any]:
        turns = asyncio.Semaphore(AT_ONCE)

        async def about(key: str, version: str) -> About:
            async with turns:
                which = {"VersionId": version} if version else {}
                head = await self.fs._call_s3("head_object", Bucket=self.name, Key=key, **which)
                return head, attributes(head, await self._tags(key, which or pinned(head)) if tags else {})

        return await asyncio.gather(*(about(*one) for one in objects), return_exceptions=True)

    async def _tags(self, key: str, which: dict[str, str]) -> dict[str, str]:
        try:
            answer = await self.fs._call_s3("get_object_tagging", Bucket=self.name, Key=key, **which)
        except OSError as error:
            if error.errno in NO_TAGS:
                return {}
            raise
        return {tag["Key"]: tag["Value"] for tag in answer.get("TagSet", [])}

    def read(self, key: str, **which: Any) -> bytes:
        """An object's bytes, or those of a ``Range``. Raises ``OSError``; ``FileNotFoundError`` where it is gone."""
        data: bytes = fsspec.asyn.sync(self.fs.loop, self._read, key, which)
        return data

    async def _read(self, key: str, which: dict[str, Any]) -> bytes:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = await self.fs._call_s3("get_object", Bucket=self.name, Key=key, **which)
                async with answer["Body"] as body:
                    data: bytes = await body.read()
                return data
            except (FileNotFoundError, PermissionError):
                raise
            except Exception as error:  # a connection may end amid the bytes
                if has_changed(error):
                    raise
                if attempt == ATTEMPTS:
                    raise OSError(errno.EIO, str(error) or type(error).__name__) from error
        raise AssertionError

    def former_versions(self, prefix: str) -> Iterator[Version]:
        """All below ``prefix`` that are not the present ones, by key, the newest first."""
        marks: dict[str, str] = {}
        while True:
            page = self.call("list_object_versions", Prefix=prefix, **marks)
            for kind, deleted in (("Versions", False), ("DeleteMarkers", True)):
                for one in page.get(kind, []):
                    if deleted or not one["IsLatest"]:
                        yield Version(one["Key"], one["VersionId"], one, deleted)
            if not page.get("IsTruncated"):
                return
            marks = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page.get("NextVersionIdMarker", "")}


def check_bucket(name: str, prefix: str) -> None:
    """Raises :class:`BadOptions` for what may not stand in a URL that rules are compared with."""
    if not name or "/" in name or name in (".", ".."):
        raise BadOptions(f"{name!r} is no name of a bucket")
    if not {"", ".", ".."}.isdisjoint(prefix.split("/")) and prefix:
        raise BadOptions(f"{prefix!r} is no prefix", hint="folders with a / between them, such as photos/2026")


def claim_of(server: str, bucket: str, prefix: str) -> str:
    """``s3+server://<server>/<bucket>[/<prefix>]``; ``s3://`` names the buckets of the plug-in files."""
    return "/".join(filter(None, (f"s3+server://{quote(server)}", bucket, quote(prefix))))


def pinned(head: Answer) -> dict[str, str]:
    """What a request says to mean that version, where the bucket has them."""
    version = head.get("VersionId")
    return {"VersionId": version} if version and version != "null" else {}


def has_changed(error: Exception) -> bool:
    """Whether the object is another one than was asked for."""
    code = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")
    return code in ("PreconditionFailed", "412")


def attributes(head: Answer, tags: Mapping[str, str]) -> dict[bytes, bytes]:
    """What an object has beside its content, as extended attributes."""
    found = {HEADER + short: str(head[name]) for name, short in HEADERS.items() if head.get(name)}
    found |= {USER + name.encode(): value for name, value in head.get("Metadata", {}).items()}
    found |= {TAG + name.encode(): value for name, value in tags.items()}
    return {name: value.encode() for name, value in sorted(found.items())}


def request(xattrs: Mapping[bytes, bytes]) -> dict[str, Any]:
    """The same as what a request to write the object says."""
    texts = {name: value.decode() for name, value in xattrs.items() if name.startswith(PREFIX)}
    kept = {name: texts.get(HEADER + short) for name, short in HEADERS.items()}
    asked: dict[str, Any] = {ASKED[name]: value for name, value in kept.items() if value}
    users = {name.removeprefix(USER).decode(): value for name, value in texts.items() if name.startswith(USER)}
    tags = {name.removeprefix(TAG).decode(): value for name, value in texts.items() if name.startswith(TAG)}
    return (
        asked | ({"Metadata": users} if users else {}) | ({"Tagging": urlencode(tags, quote_via=quote)} if tags else {})
    )


@contextmanager
def explained(bucket: str) -> Iterator[None]:
    """What s3fs raises, as errors of a source."""
    try:
        yield
    except FileNotFoundError as error:
        raise SourceMissing(f"the bucket {bucket} does not exist", hint="make it, or name another one") from error
    except PermissionError as error:
        raise SourceDenied(
            f"the S3 server refuses access to {bucket}: {error}",
            hint="see `key` and `secret` of the service's settings, and the policy of the bucket",
        ) from error
    except Exception as error:  # s3fs raises what botocore and aiohttp raise
        reason = str(error) or type(error).__name__
        raise SourceUnavailable(
            f"the S3 server of {bucket} does not do it: {reason}", hint="see `endpoint` of the service's settings"
        ) from error
