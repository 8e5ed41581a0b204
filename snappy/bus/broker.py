"""The private nats-server of a machine that has none: loopback, a free port, random passwords, one a state folder.

The first command starts it and owns it; a command that comes later joins it, and adds its own users. An exclusive
lock on the state folder is held by the server itself, since two servers on one store silently lose what they have
acknowledged. The server ends with its owner, however that ends.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import json
import os
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError

from snappy import config, log
from snappy.bus import program, roles
from snappy.bus.roles import User
from snappy.bus.subjects import Subjects
from snappy.decoding import from_json
from snappy.errors import BusUnavailable, UsageError

START_SECONDS = 30.0
STOP_SECONDS = 15.0
RETRY_SECONDS = 0.1
LOCK_SECONDS = 0.02
STATE_HINT = "set state_dir or SNAPPY_STATE_DIR to a folder of yours"
LOG_BYTES = 10 << 20
ADMIN = "sys-admin"
RELOADS = 2
"""nats-server 2.15 makes a new account at the first and connects its imports at the second."""
RESTART_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0)

_log = log.get(__name__)


class Login(msgspec.Struct, frozen=True):
    role: roles.Role
    password: str


class Running(msgspec.Struct, frozen=True):
    """What ``broker.json`` tells those who join; it is as secret as the passwords in it."""

    prefix: str
    port: int
    admin: str
    users: dict[str, Login] = {}
    lasting: bool = False
    """Its owner stays until it is told to end, rather than for one command."""

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"


class Broker:
    """The embedded server, owned or joined. Make one by :meth:`start`."""

    def __init__(self, folder: Path, prefix: str, environ: Mapping[str, str], *, lasting: bool = False) -> None:
        self._folder = folder
        self._prefix = prefix
        self._environ = environ
        self._running = Running(prefix=prefix, port=-1, admin=secrets.token_hex(24), lasting=lasting)
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._lock: int | None = None

    @classmethod
    async def start(
        cls,
        state_dir: str | Path,
        users: Sequence[User] = (),
        *,
        prefix: str = "snappy",
        environ: Mapping[str, str] = os.environ,
        lasting: bool = False,
    ) -> Broker:
        """Start a server on ``state_dir``, or join the one that runs there, and let ``users`` in.

        ``lasting`` tells those who join that a server which is started here stays. The users need no passwords; see
        :meth:`nats`. Raises UsageError (no nats-server, one too old, another prefix) or BusUnavailable (it does not
        come up; the message holds the end of its log).
        """
        broker = cls(_folder(state_dir), prefix, environ, lasting=lasting)
        async with broker._in_time():
            await broker._own_or_join(users)
        return broker

    @classmethod
    async def join(cls, state_dir: str | Path, users: Sequence[User] = (), *, prefix: str = "snappy") -> Broker | None:
        """Join the server that runs on ``state_dir``; None where none does. Raises as :meth:`start` does."""
        broker = cls(_folder(state_dir), prefix, {})
        async with broker._in_time():
            while not await broker._join(users):
                if broker._is_free():
                    return None
                await asyncio.sleep(RETRY_SECONDS)
        return broker

    @property
    def owned(self) -> bool:
        """Whether this process started the server, so that :meth:`stop` ends it."""
        return self._lock is not None

    @property
    def lasting(self) -> bool:
        """Whether the server's owner stays until it is told to end."""
        return self._running.lasting

    async def ended(self) -> None:
        """Until the server that was joined runs no more: another runs on the state folder, or may be started there."""
        while not self._is_free() and (self._read() or self._running).admin == self._running.admin:  # noqa: ASYNC110
            await asyncio.sleep(RETRY_SECONDS)

    @property
    def url(self) -> str:
        return self._running.url

    @property
    def log_file(self) -> Path:
        return self._folder / "server.log"

    def nats(self, user: str) -> config.Nats:
        """How ``user`` reaches the server: the address, and the file with the password."""
        if user not in self._running.users:
            raise UsageError(f"the embedded NATS server knows no user {user!r}")
        return config.Nats(url=self.url, user=user, password=config.Secret(file=str(self._password_file(user))))

    async def admit(self, users: Sequence[User]) -> None:
        """Let more users in while the server runs. A user who is known already keeps the password."""
        async with _locked(self._folder / "users.lock"):
            known = self._read() or self._running
            fresh = {user.name: Login(user.role, secrets.token_hex(24)) for user in users}
            changed = {name: login for name, login in fresh.items() if _differs(name, login, known)}
            self._running = msgspec.structs.replace(known, users={**known.users, **changed})
            if changed:
                self._write()
                await self._reload()

    async def stop(self) -> None:
        """End the server if it is ours; harmless otherwise, and when repeated."""
        if self._lock is None:
            return
        if self._keeper:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        (self._folder / "broker.json").unlink(missing_ok=True)
        await self._end()
        fcntl.flock(self._lock, fcntl.LOCK_UN)  # at once, for whoever else still has it open
        os.close(self._lock)
        self._lock = None

    def _is_free(self) -> bool:
        held = _lock(self._folder / "lock")
        if held is not None:
            os.close(held)
        return held is not None

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(START_SECONDS):
                yield
        except TimeoutError as error:
            raise BusUnavailable(f"the embedded NATS server does not come up: {_tail(self.log_file)}") from error

    async def _own_or_join(self, users: Sequence[User]) -> None:
        """The one that runs may be about to end, or not be up yet: then try again."""
        for pause in itertools.repeat(RETRY_SECONDS):
            if await self._own(users) or await self._join(users):
                return
            await asyncio.sleep(pause)

    # ---- owning --------------------------------------------------------------------------------------------------

    async def _own(self, users: Sequence[User]) -> bool:
        """Start the server, unless another holds the lock."""
        self._lock = _lock(self._folder / "lock")
        if self._lock is None:
            return False
        try:
            await self._start_first(users)
        except BaseException:
            await self.stop()
            raise
        self._keeper = asyncio.create_task(self._keep())
        return True

    async def _start_first(self, users: Sequence[User]) -> None:
        logins = {user.name: Login(user.role, secrets.token_hex(24)) for user in users}
        self._running = msgspec.structs.replace(self._running, users=logins)
        (self._folder / "broker.json").unlink(missing_ok=True)
        _trim(self.log_file)
        self._write_server_files()
        port = await self._spawn()
        self._running = msgspec.structs.replace(self._running, port=port)
        self._write()

    async def _spawn(self) -> int:
        """Start the process and wait until it listens; the port."""
        assert self._lock is not None
        for old in self._folder.glob("*.ports"):
            old.unlink()
        path = program.find(self._environ)
        self._process = await program.spawn(
            path, "-c", str(self._folder / "server.conf"), log_file=self.log_file, keep_open=self._lock
        )
        while (port := self._announced_port()) is None:
            if self._process.returncode is not None:
                raise BusUnavailable(f"the embedded NATS server ended at once: {_tail(self.log_file)}")
            await asyncio.sleep(0.02)
        return port

    def _announced_port(self) -> int | None:
        """What the server says it listens on; None while it has not, or has not finished saying so."""
        for file in self._folder.glob("*.ports"):
            with suppress(ValueError):
                url: str = json.loads(file.read_text())["nats"][0]
                return int(url.rpartition(":")[2])
        return None

    async def _keep(self) -> None:
        """Start the server again, on the same port, should it die before its owner."""
        failures = 0
        while True:
            assert self._process is not None
            status = await self._process.wait()
            _log.error("the embedded NATS server died; starting it again", status=status, log=_tail(self.log_file))
            await asyncio.sleep(RESTART_SECONDS[min(failures, len(RESTART_SECONDS) - 1)])
            failures += 1
            try:
                async with _locked(self._folder / "users.lock"):
                    self._running = self._read() or self._running
                    self._write_server_files()
                await self._spawn()
            except (BusUnavailable, OSError) as error:
                _log.error("the embedded NATS server does not start", error=str(error))

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
        if process.stdin:
            process.stdin.close()

    # ---- joining -------------------------------------------------------------------------------------------------

    async def _join(self, users: Sequence[User]) -> bool:
        """Use the server that runs, if it is up and stays."""
        found = self._read()
        if found is None:
            return False
        if found.prefix != self._prefix:
            raise UsageError(f"a server with the prefix {found.prefix!r} runs on that state folder")
        self._running = found
        try:
            await self.admit(users)
        except BusUnavailable:
            return False
        return True

    def _read(self) -> Running | None:
        with suppress(FileNotFoundError):
            return from_json((self._folder / "broker.json").read_bytes(), Running)
        return None

    async def _reload(self) -> None:
        """Ask the server, as its administrator, to read its configuration again."""
        nc = Client()
        try:
            await nc.connect(self.url, user=ADMIN, password=self._running.admin, allow_reconnect=False)
            server = nc._server_info["server_id"]
            for _ in range(RELOADS):
                answer = await nc.request(f"$SYS.REQ.SERVER.{server}.RELOAD", b"", timeout=5.0)
            failure = json.loads(answer.data).get("error")
        except (NatsError, OSError, TimeoutError) as error:
            raise BusUnavailable(f"the embedded NATS server cannot be asked to let users in: {error}") from error
        finally:
            await nc.close()
        if failure:
            raise BusUnavailable(f"the embedded NATS server lets nobody in: {failure.get('description', failure)}")

    # ---- files ---------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        self._write_server_files()
        for name, login in self._running.users.items():
            _write_secret(self._password_file(name), login.password)
        _write_secret(self._folder / "broker.json", msgspec.json.encode(self._running).decode())

    def _write_server_files(self) -> None:
        _write_secret(self._folder / "server.conf", self._configuration())

    def _configuration(self) -> str:
        users = [User(name, login.role, login.password) for name, login in self._running.users.items()]
        section = roles.accounts(users, Subjects(self._prefix))
        section["SYS"] = {"users": [{"user": ADMIN, "password": self._running.admin}]}
        return roles.render(
            {
                "server_name": f"{self._prefix}-embedded",
                "listen": f"127.0.0.1:{self._running.port}",
                "ports_file_dir": str(self._folder),
                **LIMITS,
                "jetstream": {"store_dir": str(self._folder / "store"), **JETSTREAM},
                "accounts": section,
                "system_account": "SYS",
            }
        )

    def _password_file(self, user: str) -> Path:
        return self._folder / f"{user}.password"


LIMITS = {
    "max_payload": 2 << 20,
    "max_pending": 128 << 20,
    "write_deadline": "10s",
    "ping_interval": "20s",
    "ping_max": 2,
    "lame_duck_duration": "30s",
    "lame_duck_grace_period": "1s",
}
"""A frame of 1 MiB and its head; a window of frames for each listener; a dead client is noticed within a minute."""
JETSTREAM = {"sync_interval": "always", "max_file_store": 4 << 30, "max_memory_store": 256 << 20}
"""``always``: what is acknowledged is on the disk."""


def _folder(state_dir: str | Path) -> Path:
    folder = Path(state_dir).expanduser() / "nats"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the state folder {folder} cannot be made: {error.strerror}", hint=STATE_HINT) from error
    return folder


def _differs(name: str, login: Login, known: Running) -> bool:
    found = known.users.get(name)
    if found and found.role != login.role:
        raise UsageError(f"the embedded NATS server knows {name!r} as a {found.role}, not as a {login.role}")
    return found is None


def _lock(path: Path) -> int | None:
    """A file descriptor that holds the lock, or None where another has it."""
    found = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(found)
        return None
    return found


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Tried again and again, since to wait in the kernel would stop the one who holds it in this process."""
    while (held := _lock(path)) is None:  # noqa: ASYNC110 (another process cannot set our event)
        await asyncio.sleep(LOCK_SECONDS)
    try:
        yield
    finally:
        os.close(held)


def _write_secret(path: Path, text: str) -> None:
    """Whole or not at all, and never readable by others."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def _trim(log_file: Path) -> None:
    if log_file.exists() and log_file.stat().st_size > LOG_BYTES:
        log_file.replace(log_file.with_suffix(".log.1"))


def _tail(log_file: Path, lines: int = 3) -> str:
    try:
        return " / ".join(log_file.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "it wrote no log"
