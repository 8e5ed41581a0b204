"""A container of OpenStack Swift, or of Ceph's radosgw: ``swift://container/prefix``.

An object is one upload, whose MD5 the server compares; it shows when it is complete. ``If-None-Match: *`` creates, but
not every server heeds it (Ceph's radosgw does not), so the name is asked for as well before it is taken.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import os
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

from fsspec.asyn import AsyncFileSystem

from snappy.decoding import from_json
from snappy.targets.drafts import Body
from snappy.targets.ranges import BLOCK, RangedFile
from snappy.targets.swift_login import Access, Login, log_in
from snappy.targets.web import Answer, Web, refusal

REFUSED = 401
PARTIAL = 206


class ContainerMissing(FileNotFoundError):
    """``response`` is what S3's errors have: whoever handles a missing bucket handles this."""

    response = {"Error": {"Code": "NoSuchBucket"}}  # noqa: RUF012


class SwiftFileSystem(AsyncFileSystem):
    """``options`` are the fields of :class:`snappy.targets.swift_login.Login`."""

    protocol = "swift"
    cachable = False

    def __init__(self, **options: str) -> None:
        super().__init__()
        self._login = Login(**options)
        self._web = Web()
        self._access: Access | None = None
        self._logging_in = asyncio.Lock()

    async def _ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: BinaryIO | None = None,
        query: str = "",
    ) -> Answer:
        """A success. With a token that is refused one logs in again, once: they run out. Raises OSError."""
        refused: Access | None = None
        while True:
            access = await self._logged_in(refused)
            url = f"{access.storage}/{quote(path)}{query}"
            answer = await self._web.ask(method, url, {**(headers or {}), "X-Auth-Token": access.token}, body)
            if answer.status != REFUSED or refused:
                break
            refused = access
        if not 200 <= answer.status < 300:
            raise refusal(answer, path)
        return answer

    async def _logged_in(self, refused: Access | None) -> Access:
        async with self._logging_in:
            if self._access is None or self._access is refused:
                self._access = await log_in(self._web, self._login)
            return self._access

    # ---- reading

    async def _info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        try:
            return await self._object(path)
        except FileNotFoundError:
            if await anext(self._below(path), None) is None:
                raise
        return _folder(path)

    async def _object(self, path: str) -> dict[str, Any]:
        if "/" not in path:
            return _folder(path)
        found = (await self._ask("HEAD", path)).headers
        modified = parsedate_to_datetime(found["Last-Modified"]).timestamp()
        return _file(path, int(found["Content-Length"]), modified)

    async def _ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        path = self._strip_protocol(path)
        items = [item async for item in self._below(path, "/")] or [await self._object(path)]
        return items if detail else [item["name"] for item in items]

    async def _find(self, path: str, maxdepth: int | None = None, withdirs: bool = False, **kwargs: Any) -> Any:
        if maxdepth is not None or withdirs:
            return await super()._find(path, maxdepth, withdirs, **kwargs)
        found = {item["name"]: item async for item in self._below(self._strip_protocol(path))}
        return found if kwargs.get("detail") else sorted(found)

    async def _below(self, path: str, delimiter: str = "") -> AsyncIterator[dict[str, Any]]:
        """All objects, or with ``delimiter`` what is in this folder alone; a page at a time."""
        container, _, folder = path.partition("/")
        asked = {"format": "json", "prefix": f"{folder}/" if folder else "", "delimiter": delimiter}
        marker = ""
        while page := await self._page(container, asked | {"marker": marker}):
            for entry in page:
                yield _item(container, entry)
            marker = page[-1].get("name") or page[-1]["subdir"]

    async def _page(self, container: str, asked: dict[str, str]) -> list[dict[str, Any]]:
        try:
            answer = await self._ask("GET", container, query=f"?{urlencode(asked)}")
        except FileNotFoundError as error:
            raise ContainerMissing(errno.ENOENT, os.strerror(errno.ENOENT), container) from error
        found: list[dict[str, Any]] = from_json(answer.content) if answer.content else []
        return found

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        path = self._strip_protocol(path)
        if end is not None and 0 <= end <= (start or 0):
            return b""
        whole = start is None and end is None
        headers = {} if whole else {"Range": await self._process_limits(path, start, end)}
        try:
            answer = await self._ask("GET", path, headers)
        except OSError as error:
            if error.errno == errno.ESPIPE:
                return b""
            raise
        return answer.content if answer.status == PARTIAL else answer.content[start:end]

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        return RangedFile(self, path, mode, block_size=BLOCK)

    # ---- changing

    async def _pipe_file(self, path: str, value: Any, mode: str = "overwrite", **kwargs: Any) -> None:
        await self._send(path, value if isinstance(value, Body) else io.BytesIO(value), mode)

    async def _put_file(self, lpath: str, rpath: str, mode: str = "overwrite", **kwargs: Any) -> None:
        with Body(lpath) as body:
            await self._send(rpath, body, mode)

    async def _send(self, path: str, body: BinaryIO, mode: str) -> None:
        path = self._strip_protocol(path)
        headers = {"Content-Type": "application/octet-stream", "ETag": await asyncio.to_thread(_md5, body)}
        if mode == "create":
            headers["If-None-Match"] = "*"
            if await self._is_taken(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        try:
            await self._ask("PUT", path, headers, body)
        except FileNotFoundError as error:
            raise ContainerMissing(errno.ENOENT, os.strerror(errno.ENOENT), path) from error

    async def _is_taken(self, path: str) -> bool:
        try:
            await self._object(path)
        except FileNotFoundError:
            return False
        return True

    async def _rm_file(self, path: str, **kwargs: Any) -> None:
        await self._ask("DELETE", self._strip_protocol(path))


def _md5(body: BinaryIO) -> str:
    body.seek(0)
    return hashlib.file_digest(body, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()  # type: ignore[arg-type]


def _file(path: str, size: int, modified: float) -> dict[str, Any]:
    return {"name": path, "size": size, "type": "file", "mtime": modified}


def _folder(path: str) -> dict[str, Any]:
    return {"name": path, "size": 0, "type": "directory"}


def _item(container: str, entry: dict[str, Any]) -> dict[str, Any]:
    if "subdir" in entry:
        return _folder(f"{container}/{entry['subdir']}".rstrip("/"))
    return _file(f"{container}/{entry['name']}", entry["bytes"], _when(entry.get("last_modified", "")))


def _when(text: str) -> float:
    """Swift says no time zone: it is UTC."""
    return datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=UTC).timestamp() if text else 0.0
