"""How a repository begins and is entered: its configuration file, and the key that opens it.

Source: restic's ``doc/design.rst``, "Repository Format".
"""

from __future__ import annotations

import os

import msgspec

from snappy import log
from snappy.errors import (
    AlreadyExists,
    BucketMissing,
    Damaged,
    NotARepository,
    NotFound,
    RepositoryError,
    RepositoryExists,
    SnappyError,
    Unauthentic,
    WrongPassword,
)
from snappy.repository.crypto import SealingKey
from snappy.repository.format import NEWEST_VERSION, OLDEST_VERSION, Random, decode_json, encode_json, parse_id
from snappy.repository.keys import DEFAULT_COST, ScryptCost, StoredKey, create_key, find_keys
from snappy.repository.polynomial import random_irreducible
from snappy.repository.store import FileType, Store

_LOG = log.get(__name__)
_NAME = "config"


class Config(msgspec.Struct, frozen=True):
    """The configuration of a repository. ``chunker_polynomial`` is in hexadecimal."""

    version: int
    id: str
    chunker_polynomial: str

    @property
    def has_compression(self) -> bool:
        """Version 1 had none."""
        return self.version >= NEWEST_VERSION

    @property
    def chunker_seed(self) -> int:
        """The polynomial as a number: a secret of the repository that decides where files are cut."""
        try:
            return int(self.chunker_polynomial, 16)
        except ValueError as error:
            raise Damaged("the configuration has a chunker polynomial that is no number") from error


def create(store: Store, password: str, random: Random = os.urandom, cost: ScryptCost = DEFAULT_COST) -> None:
    """Make a repository of version 2: a key first, and last the configuration, which makes it one.

    Of several who do this at once one wins; the others take their keys away and raise :class:`RepositoryExists`.
    """
    if store.exists(FileType.CONFIG, _NAME):
        raise RepositoryExists()
    key = _usable_key(store, password, random, cost)
    sealed = key.master.seal(encode_json(_new_config(random)), random)
    try:
        store.save(FileType.CONFIG, _NAME, sealed, create=True)
        lost = store.load(FileType.CONFIG, _NAME) != sealed  # a store without create-only: the last writer won
    except AlreadyExists:
        lost = True
    if lost:
        _withdraw(store, key)
        raise RepositoryExists()


def enter(store: Store, password: str) -> tuple[Config, StoredKey]:
    """The configuration and the key that opened it.

    Raises :class:`NotARepository`, :class:`WrongPassword`, :class:`Damaged`, :class:`RepositoryError` for a version
    that is not understood, and :class:`snappy.errors.StorageError`.
    """
    sealed = _load_sealed(store)
    failure: Damaged | None = None
    for key in find_keys(store, password):
        try:
            return _supported(_unseal(key.master, sealed)), key
        except Unauthentic:
            # The key of somebody who lost the race to create this repository, and died before he took it away.
            failure = Damaged("the configuration is damaged, or belongs to another key")
    raise failure or WrongPassword()


def _new_config(random: Random) -> Config:
    return Config(NEWEST_VERSION, random(32).hex(), f"{random_irreducible(random):x}")


def _usable_key(store: Store, password: str, random: Random, cost: ScryptCost) -> StoredKey:
    """The key that an interrupted attempt with the same password left, else a new one: two keys of one password
    would let restic try the wrong one."""
    if store.list(FileType.KEY):
        try:
            return find_keys(store, password)[0]
        except (WrongPassword, Damaged):
            pass  # somebody else's, useless without a configuration
    return create_key(store, password, SealingKey.generate(random), random=random, cost=cost)


def _withdraw(store: Store, key: StoredKey) -> None:
    try:
        _unseal(key.master, _load_sealed(store))
    except Unauthentic:
        pass
    else:
        return  # the winner took up this very key
    try:
        store.remove(FileType.KEY, key.name)
    except SnappyError as error:
        _LOG.warning("a useless key could not be removed", key=key.name, reason=error.message)


def _load_sealed(store: Store) -> bytes:
    try:
        return store.load(FileType.CONFIG, _NAME)
    except BucketMissing:
        raise
    except NotFound as error:
        raise NotARepository(f"there is no repository at that place: {error.message}") from error


def _unseal(key: SealingKey, sealed: bytes) -> Config:
    config = decode_json(key.open(sealed), Config, "the configuration")
    parse_id(config.id)
    return config


def _supported(config: Config) -> Config:
    if not OLDEST_VERSION <= config.version <= NEWEST_VERSION:
        raise RepositoryError(
            f"the repository has format version {config.version}; versions 1 and 2 are understood",
            hint="a newer Snappy may understand it",
        )
    return config
