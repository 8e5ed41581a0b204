"""A folder on an SSH server, over SFTP: ``sftp://user@host:port/absolute/path``.

An object is written under a temporary name, synced where the server can do that, and renamed. The plain rename of SFTP
refuses a name that is taken, so it is what creates; OpenSSH's ``posix-rename`` is what replaces, and a server without
it replaces nothing. The server's host key must be known (``known_hosts``), as ssh has it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import asyncssh
from fsspec import AbstractFileSystem
from fsspec.asyn import get_loop, sync
from fsspec.utils import infer_storage_options

from snappy.targets.drafts import Bytes, Draft, part_name, without_parts
from snappy.targets.ranges import RangedFile, bounds

OBJECT_MODE = 0o600
FOLDER_MODE = 0o700
PIECE = 4 << 20
"""Bytes that are sent at once; the library cuts them into as many requests as the server takes."""
PATIENCE: dict[str, Any] = {
    "connect_timeout": 10,
    "login_timeout": 20,
    "keepalive_interval": 5,
    "keepalive_count_max": 4,
}
"""Without these a server that is gone without a word holds an operation for ever."""

_ERRNO: dict[type[Exception], int] = {
    asyncssh.SFTPNoSuchFile: errno.ENOENT,
    asyncssh.SFTPNoSuchPath: errno.ENOENT,
    asyncssh.SFTPPermissionDenied: errno.EACCES,
    asyncssh.SFTPWriteProtect: errno.EROFS,
    asyncssh.SFTPFileAlreadyExists: errno.EEXIST,
    asyncssh.SFTPNoSpaceOnFilesystem: errno.ENOSPC,
    asyncssh.SFTPQuotaExceeded: errno.EDQUOT,
    asyncssh.SFTPDirNotEmpty: errno.ENOTEMPTY,
    asyncssh.SFTPNotADirectory: errno.ENOTDIR,
    asyncssh.SFTPFileIsADirectory: errno.EISDIR,
    asyncssh.SFTPOpUnsupported: errno.EOPNOTSUPP,
    asyncssh.PermissionDenied: errno.EACCES,
    asyncssh.HostKeyNotVerifiable: errno.EACCES,
    asyncssh.KeyImportError: errno.EACCES,
}
LOST = (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, asyncssh.DisconnectError)

T = TypeVar("T")
Work = Callable[[asyncssh.SFTPClient], Awaitable[T]]


class SftpFileSystem(AbstractFileSystem):
    """``options`` are those of ``asyncssh.connect``: ``username``, ``password``, ``client_keys`` (paths of private
    keys), ``known_hosts`` (a path), and so on. A connection that broke is made anew by the next operation."""

    protocol = ("sftp", "ssh")
    cachable = False
    reads_ranges = True

    def __init__(self, host: str, port: int = 22, **options: Any) -> None:
        super().__init__()
        self._to: dict[str, Any] = PATIENCE | options | {"host": host, "port": port}
        self._connection: asyncssh.SSHClientConnection | None = None
        self._client: asyncssh.SFTPClient | None = None
        self._connecting = asyncio.Lock()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return (str(infer_storage_options(path)["path"]) if "://" in path else path).rstrip("/") or "/"

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        found = infer_storage_options(path)
        return {name: found[name] for name in ("host", "port", "username", "password") if name in found}

    def draft(self, path: str, *, exclusive: bool) -> Draft:
        return SftpDraft(self, path, exclusive)

    def work(self, path: str, work: Work[T], within: float | None = None) -> T:
        """What ``work`` makes of the client. Raises OSError, or TimeoutError after ``within`` seconds."""

        async def done() -> T:
            try:
                return await work(await self._connected())
            except (asyncssh.Error, asyncssh.KeyImportError) as error:
                if isinstance(error, LOST):
                    self._client = None
                number = next((_ERRNO[kind] for kind in type(error).__mro__ if kind in _ERRNO), errno.EIO)
                raise OSError(number, os.strerror(number), path) from error

        result: T = sync(get_loop(), done, timeout=within)
        return result

    async def _connected(self) -> asyncssh.SFTPClient:
        async with self._connecting:
            if self._client is None or self._connection is None or self._connection.is_closed():
                self._connection = await asyncssh.connect(**self._to)
                self._client = await self._connection.start_sftp_client()
            return self._client

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            get_loop().call_soon_threadsafe(self._connection.abort)

    # ---- reading

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        return _item(path, self.work(path, lambda client: client.stat(path)))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        path = self._strip_protocol(path)
        try:
            items = without_parts(self.listed(path))
        except OSError:
            if (item := self.info(path))["type"] == "directory":
                raise
            items = [item]
        return items if detail else [item["name"] for item in items]

    def listed(self, folder: str) -> list[dict[str, Any]]:
        """All that is in it, with what is on its way."""
        found = self.work(folder, lambda client: client.readdir(folder))
        names = [(str(each.filename), each.attrs) for each in found if each.filename not in (".", "..")]
        return [_item(f"{folder.rstrip('/')}/{name}", attributes) for name, attributes in names]

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        path = self._strip_protocol(path)
        first, last = bounds(start, end, lambda: int(self.info(path)["size"]))

        async def read(client: asyncssh.SFTPClient) -> bytes:
            async with client.open(path, "rb") as file:
                return await file.read(-1 if last is None else max(0, last - first), first)

        return self.work(path, read)

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        return RangedFile(self, path, mode, block_size=PIECE)

    # ---- changing

    def rm_file(self, path: str) -> None:
        self.work(path, lambda client: client.remove(path))

    def _rm(self, path: str) -> None:
        self.rm_file(path)

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        if self.exists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        if create_parents:
            self.makedirs(path, exist_ok=True)
        else:
            self.work(path, lambda client: client.mkdir(path, asyncssh.SFTPAttrs(permissions=FOLDER_MODE)))

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        if not exist_ok and self.exists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self.work(path, lambda client: _make_folders(client, path))

    def rmdir(self, path: str) -> None:
        if self.ls(path):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
        self.work(path, lambda client: client.rmdir(path))


class SftpDraft:
    """A draft of one file on the server."""

    def __init__(self, fs: SftpFileSystem, path: str, exclusive: bool) -> None:
        self._fs, self._path, self._exclusive = fs, path, exclusive
        self._folder, self._part = path.rpartition("/")[0], part_name(path)
        self._pieces: list[Bytes] = []
        self._held = self._sent = 0
        self._settled = False
        self._file: asyncssh.SFTPClientFile | None = fs.work(path, self._create)

    def write(self, data: Bytes) -> None:
        self._pieces.append(bytes(data))
        self._held += len(data)
        if self._held >= PIECE:
            self._fs.work(self._path, self._send)

    def settle(self) -> None:
        if not self._settled:
            self._fs.work(self._path, self._sync)
            self._settled = True

    def commit(self, within: float | None = None) -> None:
        self.settle()
        self._fs.work(self._path, self._show, within)
        self._file = None

    def discard(self) -> None:
        self._pieces = []
        if self._file is not None:
            with suppress(OSError):  # the server may be what failed
                self._fs.work(self._path, self._forget)
            self._file = None

    async def _create(self, client: asyncssh.SFTPClient) -> asyncssh.SFTPClientFile:
        attributes = asyncssh.SFTPAttrs(permissions=OBJECT_MODE)
        try:
            return await client.open(self._part, "xb", attributes)
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
            await _make_folders(client, self._folder)
        async with self._telling_full(client):
            return await client.open(self._part, "xb", attributes)

    async def _send(self, client: asyncssh.SFTPClient) -> None:
        assert self._file is not None, "a draft is over after its commit"
        data, self._pieces, self._held = b"".join(self._pieces), [], 0
        async with self._telling_full(client):
            await self._file.write(data, self._sent)
        self._sent += len(data)

    async def _sync(self, client: asyncssh.SFTPClient) -> None:
        assert self._file is not None, "a draft is over after its commit"
        await self._send(client)
        async with self._telling_full(client):
            with suppress(asyncssh.SFTPOpUnsupported):
                await self._file.fsync()
            await self._file.close()

    async def _forget(self, client: asyncssh.SFTPClient) -> None:
        assert self._file is not None, "a draft is over after its commit"
        with suppress(asyncssh.Error):
            await self._file.close()  # a file that is open keeps its room, even without a name
        await client.remove(self._part)

    async def _show(self, client: asyncssh.SFTPClient) -> None:
        if not self._exclusive:
            await client.posix_rename(self._part, self._path)
            return
        if await client.exists(self._path):  # not every server's rename refuses
            raise FileExistsError(self._path)
        try:
            await client.rename(self._part, self._path)
        except asyncssh.SFTPError as error:
            if await client.exists(self._path):
                raise FileExistsError(self._path) from error
            raise

    @asynccontextmanager
    async def _telling_full(self, client: asyncssh.SFTPClient) -> AsyncIterator[None]:
        """SFTP's version 3, which all speak, has no word for a full disk: it is a failure like any other."""
        try:
            yield
        except asyncssh.SFTPFailure as error:
            if await _is_full(client, self._folder):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path) from error
            raise


async def _is_full(client: asyncssh.SFTPClient, folder: str) -> bool:
    try:
        found = await client.statvfs(folder)
    except asyncssh.Error:
        return False
    return found.bavail * found.frsize < PIECE


async def _make_folders(client: asyncssh.SFTPClient, path: str) -> None:
    await client.makedirs(path, asyncssh.SFTPAttrs(permissions=FOLDER_MODE), exist_ok=True)


def _item(path: str, found: asyncssh.SFTPAttrs) -> dict[str, Any]:
    kind = "directory" if stat.S_ISDIR(found.permissions or 0) else "file"
    return {"name": path, "size": found.size or 0, "type": kind, "mtime": float(found.mtime or 0)}
