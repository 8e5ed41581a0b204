"""Sealing and opening bytes as restic does: AES-256 in counter mode, authenticated with Poly1305-AES.

A sealed message is ``IV (16 bytes) || ciphertext || MAC (16 bytes)``. The one-time key of Poly1305 is ``r`` and
the IV encrypted with AES-128 under ``k``. Sources: restic's ``doc/design.rst``, "Keys, Encryption and MAC", and
https://cr.yp.to/mac/poly1305-20050329.pdf.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import threading
from collections.abc import Sequence
from typing import Self

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305

from snappy.errors import Damaged, Unauthentic
from snappy.repository.format import Random, decode_json, encode_json

IV_SIZE = 16
MAC_SIZE = 16
OVERHEAD = IV_SIZE + MAC_SIZE
"""How many bytes a sealed message is longer than what it holds."""


class _MacKeys(msgspec.Struct):
    k: bytes
    r: bytes


class _MasterKeyFile(msgspec.Struct):
    mac: _MacKeys
    encrypt: bytes


class _Ciphers(threading.local):
    """Each thread's own ciphers, set up once: that costs more than to encrypt a small blob."""

    def __init__(self, encrypt: bytes, mac_k: bytes) -> None:
        self.stream = Cipher(algorithms.AES(encrypt), modes.CTR(bytes(IV_SIZE))).encryptor()
        # One block is all that ECB ever sees here: AES as a plain permutation, as Poly1305-AES defines it.
        self.block = Cipher(algorithms.AES(mac_k), modes.ECB()).encryptor()


class SealingKey:
    """The keys that seal the files of one repository (or the master key itself, for a password's key)."""

    def __init__(self, encrypt: bytes, mac_k: bytes, mac_r: bytes) -> None:
        if (len(encrypt), len(mac_k), len(mac_r)) != (32, 16, 16):
            raise Damaged("the key has the wrong length")
        if not (any(encrypt) and any(mac_k) and any(mac_r)):
            raise Damaged("the key is all zeros")
        self._ciphers = _Ciphers(encrypt, mac_k)
        self._mac_r = mac_r
        self._parts = (encrypt, mac_k, mac_r)

    @classmethod
    def generate(cls, random: Random = os.urandom) -> Self:
        """A new random key."""
        return cls(random(32), random(16), random(16))

    @classmethod
    def from_scrypt(cls, password: str, salt: bytes, n: int, r: int, p: int) -> Self:
        """The key that a password stands for: 64 bytes of scrypt, ``encrypt || k || r``."""
        memory = 128 * r * (n + p + 2) + (1 << 20)
        derived = hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=memory, dklen=64)
        return cls(derived[:32], derived[32:48], derived[48:])

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read a master key. Raises :class:`Damaged`."""
        file = decode_json(data, _MasterKeyFile, "the master key")
        return cls(file.encrypt, file.mac.k, file.mac.r)

    def to_json(self) -> bytes:
        """The key as restic's JSON, for sealing into a key file; never to be stored as it is."""
        encrypt, mac_k, mac_r = self._parts
        return encode_json(_MasterKeyFile(mac=_MacKeys(k=mac_k, r=mac_r), encrypt=encrypt))

    def stamp(self, purpose: bytes, data: bytes) -> bytes:
        """32 bytes that nobody without the key can make: HMAC-SHA256, with a key of its own for each purpose."""
        return hmac.digest(hmac.digest(self._parts[0], purpose, "sha256"), data, "sha256")

    def seal(self, data: bytes, random: Random = os.urandom) -> bytes:
        """Encrypt and authenticate; the result is ``OVERHEAD`` bytes longer. Safe in any thread."""
        return self.seal_all([data], random)[0]

    def seal_all(self, messages: Sequence[bytes], random: Random = os.urandom) -> list[bytes]:
        """Seal each by itself, for less than one after another."""
        ivs = random(IV_SIZE * len(messages))
        encrypted = self._ciphers.block.update(ivs)
        sealed: list[bytes] = []
        for at, data in zip(range(0, len(ivs), IV_SIZE), messages, strict=True):
            iv, one_time = ivs[at : at + IV_SIZE], self._mac_r + encrypted[at : at + IV_SIZE]
            ciphertext = self._encrypted(iv, data)
            sealed.append(b"".join((iv, ciphertext, Poly1305.generate_tag(one_time, ciphertext))))
        return sealed

    def open(self, sealed: bytes | memoryview) -> bytes:
        """What was sealed. Raises :class:`Unauthentic`; nothing is decrypted before it is authenticated."""
        view = memoryview(sealed)
        if len(view) < OVERHEAD:
            raise Unauthentic("the sealed bytes are too short")
        iv, ciphertext, mac = bytes(view[:IV_SIZE]), view[IV_SIZE:-MAC_SIZE], bytes(view[-MAC_SIZE:])
        try:
            Poly1305.verify_tag(self._mac_r + self._ciphers.block.update(iv), ciphertext, mac)
        except InvalidSignature:
            raise Unauthentic from None
        return self._encrypted(iv, ciphertext)

    def _encrypted(self, iv: bytes, data: bytes | memoryview) -> bytes:
        """In counter mode, which decrypts what it encrypted."""
        stream = self._ciphers.stream
        stream.reset_nonce(iv)
        return stream.update(data)
