"""A folder on a WebDAV server: ``webdavs://host/path``, or ``webdav://`` without TLS.

An object is uploaded under a temporary name and moved. A MOVE that may not overwrite is what creates: the server
refuses a name that is taken. One that may overwrite first deletes what is there, on the servers that were looked at:
for an instant there is neither the old object nor the new.
"""

from __future__ import annotations

import errno
import io
import os
from base64 import b64encode
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree

from fsspec import AbstractFileSystem
from fsspec.asyn import get_loop, sync
from fsspec.utils import infer_storage_options

from snappy.targets.drafts import Draft, Kept, part_name, without_parts
from snappy.targets.ranges import BLOCK, RangedFile, bounds
from snappy.targets.web import Answer, Web, refusal

LOCKED = 423
"""Said while others write beside one, by servers that lock a folder for each change."""
ATTEMPTS = 6
TAKEN = 405
"""To MKCOL: there is such a folder."""
NO_FOLDER = (404, 409)
PAST_THE_END = 416
PARTIAL = 206
WANTED = (
    b'<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:"><prop>'
    b"<resourcetype/><getcontentlength/><getlastmodified/></prop></propfind>"
)
SCHEMES = {"webdav": "http", "webdavs": "https"}

T = TypeVar("T")


class WebDavFileSystem(AbstractFileSystem):
    """``base``: the server's URL without a path. ``username`` and ``password`` are sent as HTTP's basic ones."""

    protocol = ("webdav", "webdavs")
    cachable = False
    reads_ranges = True

    def __init__(self, base: str, username: str = "", password: str = "") -> None:
        super().__init__()
        self._base = base
        self._web = Web(frozenset({LOCKED}), ATTEMPTS)
        known = b64encode(f"{username}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {known}"} if username else {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return (str(infer_storage_options(path)["path"]) if "://" in path else path).rstrip("/") or "/"

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        found = infer_storage_options(path)
        port = f":{found['port']}" if "port" in found else ""
        named = {name: found[name] for name in ("username", "password") if name in found}
        return {"base": f"{SCHEMES[found['protocol']]}://{found['host']}{port}", **named}

    def draft(self, path: str, *, exclusive: bool) -> Draft:
        return WebDavDraft(self, path, exclusive)

    def work(self, work: Coroutine[Any, Any, T], within: float | None = None) -> T:
        """What a coroutine on fsspec's loop returns. Raises OSError, or TimeoutError after ``within`` seconds."""

        async def done() -> T:
            return await work

        result: T = sync(get_loop(), done, timeout=within)
        return result

    async def _ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: BinaryIO | None = None
    ) -> Answer:
        return await self._web.ask(method, self._url(path), {**self._headers, **(headers or {})}, body)

    async def _done(self, method: str, path: str, **how: Any) -> Answer:
        """A success. Raises OSError."""
        answer = await self._ask(method, path, **how)
        if not 200 <= answer.status < 300:
            raise refusal(answer, path)
        return answer

    def _url(self, path: str) -> str:
        return self._base + quote(path)

    # ---- reading

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        return self._found(path, 0)[0]

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        items = without_parts(self.listed(self._strip_protocol(path)))
        return items if detail else [item["name"] for item in items]

    def listed(self, folder: str) -> list[dict[str, Any]]:
        """All that is in it, with what is on its way."""
        found = self._found(folder, 1)
        return [item for item in found if item["name"] != folder or item["type"] == "file"]

    def _found(self, path: str, depth: int) -> list[dict[str, Any]]:
        headers = {"Depth": str(depth), "Content-Type": "application/xml"}
        answer = self.work(self._done("PROPFIND", path, headers=headers, body=io.BytesIO(WANTED)))
        try:
            return [_item(each) for each in ElementTree.fromstring(answer.content).iter("{DAV:}response")]
        except (ElementTree.ParseError, ValueError) as error:
            raise OSError(errno.EPROTO, "the server's listing is none of WebDAV", path) from error

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        path = self._strip_protocol(path)
        first, last = bounds(start, end, lambda: int(self.info(path)["size"]))
        if last is not None and last <= first:
            return b""
        headers = {} if not first and last is None else {"Range": f"bytes={first}-{'' if last is None else last - 1}"}
        answer = self.work(self._ask("GET", path, headers))
        if answer.status == PAST_THE_END:
            return b""
        if not 200 <= answer.status < 300:
            raise refusal(answer, path)
        return answer.content if answer.status == PARTIAL else answer.content[first:last]

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        return RangedFile(self, path, mode, block_size=BLOCK)

    # ---- changing

    def rm_file(self, path: str) -> None:
        self.work(self._done("DELETE", path))

    def _rm(self, path: str) -> None:
        self.rm_file(path)

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        self.makedirs(path)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        if not exist_ok and self.exists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self.work(self.make_folders(path))

    async def make_folders(self, path: str) -> None:
        answer = await self._ask("MKCOL", f"{path}/")
        if answer.status in NO_FOLDER and path.rstrip("/"):
            await self.make_folders(path.rpartition("/")[0])
            answer = await self._ask("MKCOL", f"{path}/")
        if answer.status not in (TAKEN, 200, 201):
            raise refusal(answer, path)

    def rmdir(self, path: str) -> None:
        """A DELETE takes a folder with all that is in it, so none shall get there any more: it is moved aside first."""
        aside = part_name(path)
        if not self.ls(path):
            self.work(self.move(path, aside, overwrite=False))
            if not self.ls(aside):
                return self.rm_file(aside)
            self.work(self.move(aside, path, overwrite=False))
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)

    async def upload(self, path: str, body: BinaryIO) -> None:
        headers = {"Content-Type": "application/octet-stream"}
        answer = await self._ask("PUT", path, headers, body)
        if answer.status in NO_FOLDER:
            await self.make_folders(path.rpartition("/")[0])
            answer = await self._ask("PUT", path, headers, body)
        if not 200 <= answer.status < 300:
            raise refusal(answer, path)

    async def move(self, path: str, to: str, *, overwrite: bool) -> None:
        """Raises FileExistsError."""
        headers = {"Destination": self._url(to), "Overwrite": "T" if overwrite else "F"}
        answer = await self._ask("MOVE", path, headers)
        if answer.status in NO_FOLDER:  # an answer was lost, and this was asked again: who asked will find out
            raise OSError(errno.EIO, "what was to be moved is gone", path)
        if not 200 <= answer.status < 300:
            raise refusal(answer, to)


class WebDavDraft(Kept):
    """Kept aside, uploaded under a temporary name when it settles, moved when it is committed."""

    def __init__(self, fs: WebDavFileSystem, path: str, exclusive: bool) -> None:
        super().__init__(fs, path, exclusive)
        self._part, self._sent, self._over = part_name(path), False, False

    def settle(self) -> None:
        if not self._sent:
            self._sent = True
            with self._body() as body:
                self._fs.work(self._fs.upload(self._part, body))

    def commit(self, within: float | None = None) -> None:
        self.settle()
        self._fs.work(self._fs.move(self._part, self._path, overwrite=not self._exclusive), within)
        self._over = True
        super().discard()

    def discard(self) -> None:
        super().discard()
        if self._sent and not self._over:
            self._over = True
            with suppress(OSError):  # the server may be what failed
                self._fs.rm_file(self._part)


def _item(response: ElementTree.Element) -> dict[str, Any]:
    path = unquote(urlsplit(response.findtext("{DAV:}href", "")).path).rstrip("/") or "/"
    text = {name: response.findtext(f".//{{DAV:}}{name}") or "" for name in ("getcontentlength", "getlastmodified")}
    modified = parsedate_to_datetime(text["getlastmodified"]).timestamp() if text["getlastmodified"] else 0.0
    kind = "file" if response.find(".//{DAV:}collection") is None else "directory"
    return {"name": path, "size": int(text["getcontentlength"] or 0), "type": kind, "mtime": modified}
