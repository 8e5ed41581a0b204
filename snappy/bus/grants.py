"""Grants: the core's signed word on what a worker may do at a target, and until when.

On the wire a grant is ``base64url(JSON) "." base64url(signature)``, the signature Ed25519 (RFC 8032) over the first
part's characters. A target holds the core's public key alone; it needs no message from the core to refuse a worker
whose attempt is over, since attempt n+1 is granted only when n's grant has run out plus :data:`CLOCK_MARGIN`.
"""

from __future__ import annotations

import base64
import binascii

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from snappy.decoding import from_json
from snappy.errors import AccessDenied, AttemptOver, UsageError

CLOCK_MARGIN = 2.0
"""Seconds that two clocks may differ."""

READ, LIST, WRITE, OVERWRITE, DELETE = "r", "l", "w", "W", "d"
RIGHTS_READ = READ + LIST
RIGHTS_BACKUP = READ + LIST + WRITE
"""No overwrite and no delete; a worker's own locks are the exception that the target's policy makes."""


class Grant(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """``rights`` are letters: r read, l list, w write new, W overwrite, d delete. ``expires`` is Unix seconds.
    ``locks`` are names of locks that may be removed although another grant wrote them. ``bandwidth`` is what the job
    may take, in the words of :mod:`snappy.bandwidth`."""

    job: str
    attempt: int
    caller: str
    target: str
    rights: str
    expires: float
    locks: tuple[str, ...] = ()
    bandwidth: str = ""
    deletes: tuple[str, ...] = ()
    """How the path of what may be deleted begins, where ``rights`` hold d."""
    v: int = 1


class SigningKey:
    """The core's private key; its text form is 32 bytes in base64url."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> SigningKey:
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_text(cls, text: str) -> SigningKey:
        return cls(Ed25519PrivateKey.from_private_bytes(_key_bytes(text)))

    def to_text(self) -> str:
        return _encode(self._key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))

    def public_text(self) -> str:
        return _encode(self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    def sign(self, grant: Grant) -> str:
        body = _encode(msgspec.json.encode(grant))
        return f"{body}.{_encode(self._key.sign(body.encode()))}"


class GrantChecker:
    """What a target does with a grant: check its signature once and its expiry each time."""

    def __init__(self, public_text: str) -> None:
        self._key = Ed25519PublicKey.from_public_bytes(_key_bytes(public_text))
        self._known: dict[str, Grant] = {}

    def check(self, text: str, *, caller: str, target: str, right: str, now: float) -> Grant:
        """The grant, if it lets ``caller`` do what ``right`` names at ``target`` at the time ``now``.

        Raises AccessDenied (forged, another's, no such right) or AttemptOver (it ran out).
        """
        grant = self._known.get(text) or self._verified(text)
        if grant.caller != caller or grant.target != target:
            raise AccessDenied("the grant was given to another caller or for another target")
        if now >= grant.expires:
            raise AttemptOver(f"the grant of attempt {grant.attempt} ran out")
        if right not in grant.rights:
            raise AccessDenied(f"the grant does not hold the right {right!r}")
        return grant

    def _verified(self, text: str) -> Grant:
        body, _, signature = text.partition(".")
        try:
            self._key.verify(_decode(signature), body.encode())
            grant = from_json(_decode(body), Grant)
        except (InvalidSignature, binascii.Error, ValueError, msgspec.MsgspecError) as error:
            raise AccessDenied("the grant is not signed by this target's core") from error
        if len(self._known) >= 1024:
            self._known.clear()
        self._known[text] = grant
        return grant


def _key_bytes(text: str) -> bytes:
    try:
        raw = _decode(text.strip())
    except (binascii.Error, ValueError) as error:
        raise UsageError("a grant key is 32 bytes in base64url") from error
    if len(raw) != 32:
        raise UsageError("a grant key is 32 bytes in base64url")
    return raw


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
