"""Key files: the master key of a repository, sealed under a password, once for each password.

A key file is plain JSON named by its SHA-256. Source: restic's ``doc/design.rst``, "Keys, Encryption and MAC".
"""

from __future__ import annotations

import functools
import getpass
import hashlib
import os
import socket
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from snappy.errors import Damaged, NotFound, Unauthentic, WrongPassword
from snappy.repository.crypto import SealingKey
from snappy.repository.format import MIB, Random, decode_json, encode_json
from snappy.repository.store import FileType, Store

_SALT_SIZE = 64
_MOST_MEMORY = 1024 * MIB
_MOST_WORK = 1 << 32
"""N times r times p: what restic chooses is near 2^21, so this is minutes of work and surely an attack."""


class ScryptCost(NamedTuple):
    """How hard a password is to guess: memory is ``128 * n * r`` bytes, time grows with all three."""

    n: int = 32768
    r: int = 8
    p: int = 5


DEFAULT_COST = ScryptCost()


class StoredKey(NamedTuple):
    """A key file that was opened or made: its name in the store and the master key in it."""

    name: str
    master: SealingKey


class KeyFile(msgspec.Struct):
    """What a key file holds; ``data`` is the sealed master key."""

    created: str
    username: str
    hostname: str
    kdf: str
    N: int
    r: int
    p: int
    salt: bytes
    data: bytes


def create_key(
    store: Store,
    password: str,
    master: SealingKey,
    *,
    user: str = "",
    host: str = "",
    random: Random = os.urandom,
    cost: ScryptCost = DEFAULT_COST,
    now: datetime | None = None,
) -> StoredKey:
    """Seal ``master`` under ``password`` and store the key file, which names who made it: by default this process's
    user and host. Raises :class:`snappy.errors.StorageError`."""
    salt = random(_SALT_SIZE)
    sealed = SealingKey.from_scrypt(password, salt, *cost).seal(master.to_json(), random)
    data = encode_json(
        KeyFile(
            created=(now or datetime.now(UTC)).isoformat(),
            username=user or _user(),
            hostname=host or socket.gethostname(),
            kdf="scrypt",
            N=cost.n,
            r=cost.r,
            p=cost.p,
            salt=salt,
            data=sealed,
        )
    )
    name = hashlib.sha256(data).hexdigest()
    store.save(FileType.KEY, name, data)
    return StoredKey(name, master)


def find_keys(store: Store, password: str) -> list[StoredKey]:
    """All keys that open with ``password``; more than one only where somebody stored it twice.

    Raises :class:`WrongPassword` when there is none, :class:`Damaged` when the only ones left cannot be read.
    """
    opened: list[StoredKey] = []
    damaged: Damaged | None = None
    for name, size in store.list(FileType.KEY):
        try:
            opened.append(open_key(store, name, size, password))
        except (Unauthentic, NotFound):
            continue  # another password's key, or one that was removed meanwhile
        except Damaged as error:
            damaged = error
    if not opened:
        raise damaged or WrongPassword()
    return opened


def open_key(store: Store, name: str, size: int, password: str) -> StoredKey:
    """Open one key file. Raises :class:`Unauthentic` for another password's, :class:`Damaged` for a bad file."""
    file = read_key(store, name, size)
    sealing = _derived(password, file.salt, file.N, file.r, file.p)
    return StoredKey(name, SealingKey.from_json(sealing.open(file.data)))


def read_key(store: Store, name: str, size: int) -> KeyFile:
    """A key file, whatever its password. Raises :class:`Damaged` and :class:`snappy.errors.StorageError`."""
    file = decode_json(store.load_named(FileType.KEY, name, size), KeyFile, f"the key {name[:8]}")
    _check_cost(file, name)
    return file


@functools.lru_cache(maxsize=16)
def _derived(password: str, salt: bytes, n: int, r: int, p: int) -> SealingKey:
    """Half a second of work that a service, which opens the same repositories again and again, does once. A key file
    that is gone opens nothing any more, nor does a password that was changed."""
    return SealingKey.from_scrypt(password, salt, n, r, p)


def _check_cost(file: KeyFile, name: str) -> None:
    n, r, p = file.N, file.r, file.p
    power_of_two = n > 1 and n & (n - 1) == 0
    if file.kdf != "scrypt" or not power_of_two or r < 1 or p < 1:
        raise Damaged(f"the key {name[:8]} asks for a key derivation that does not exist")
    if 128 * r * (n + p) > _MOST_MEMORY or n * r * p > _MOST_WORK:
        raise Damaged(f"the key {name[:8]} asks for more memory or time than a key derivation may cost")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""  # a user id without a name, as in many containers
