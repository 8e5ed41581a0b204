from __future__ import annotations

import pytest

from snappy.errors import Damaged, Unauthentic
from snappy.repository.crypto import OVERHEAD, SealingKey

# The test vectors of Poly1305-AES: https://cr.yp.to/mac/poly1305-20050329.pdf, appendix B.
VECTORS = (
    (
        "f3f6",
        "851fc40c3467ac0be05cc20404f3f700",
        "ec074c835580741701425b623235add6",
        "fb447350c4e868c52ac3275cf9d4327e",
        "f4c633c3044fc145f84f335cb81953de",
    ),
    (
        "",
        "a0f3080000f46400d0c7e9076c834403",
        "75deaa25c09f208e1dc4ce6b5cad3fbf",
        "61ee09218d29b0aaed7e154a2c5509cc",
        "dd3fab2251f11ac759f0887129cc2ee7",
    ),
    (
        "663cea190ffb83d89593f3f476b6bc24d7e679107ea26adb8caf6652d0656136",
        "48443d0bb0d21109c89a100b5ce2c208",
        "6acb5f61a7176dd320c5c1eb2edcdc74",
        "ae212a55399729595dea458bc621ff0e",
        "0ee1c16bb73f0f4fd19881753c01cdbe",
    ),
)


def key() -> SealingKey:
    return SealingKey(b"e" * 32, b"k" * 16, b"r" * 16)


@pytest.mark.parametrize(("message", "r", "k", "nonce", "mac"), VECTORS)
def test_the_mac_is_poly1305_aes(message: str, r: str, k: str, nonce: str, mac: str) -> None:
    sealing = SealingKey(b"e" * 32, bytes.fromhex(k), bytes.fromhex(r))
    opened = sealing.open(bytes.fromhex(nonce + message + mac))
    assert sealing.seal(opened, lambda size: bytes.fromhex(nonce)).hex() == nonce + message + mac


def test_what_is_sealed_opens() -> None:
    sealed = key().seal(b"plain")
    assert len(sealed) == len(b"plain") + OVERHEAD
    assert b"plain" not in sealed
    assert key().open(memoryview(sealed)) == b"plain"


def test_no_two_seals_are_alike() -> None:
    assert key().seal(b"plain") != key().seal(b"plain")


@pytest.mark.parametrize("position", [0, 15, 16, 20, -16, -1])
def test_each_changed_bit_is_noticed(position: int) -> None:
    sealed = bytearray(key().seal(b"plain"))
    sealed[position] ^= 1
    with pytest.raises(Unauthentic):
        key().open(bytes(sealed))


def test_another_key_does_not_open() -> None:
    with pytest.raises(Unauthentic):
        SealingKey.generate().open(key().seal(b"plain"))


@pytest.mark.parametrize("size", [0, 1, OVERHEAD - 1])
def test_too_short(size: int) -> None:
    with pytest.raises(Unauthentic):
        key().open(bytes(size))


def test_a_key_survives_its_json() -> None:
    read = SealingKey.from_json(key().to_json())
    assert read.open(key().seal(b"plain")) == b"plain"
    assert key().open(read.seal(b"plain")) == b"plain"


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{}",
        b"[]",
        b'{"mac":{"k":"AA==","r":"AA=="},"encrypt":"AA=="}',
        SealingKey(b"e" * 32, b"k" * 16, b"r" * 16).to_json().replace(b"ZWVl", b"AA!!"),
    ],
)
def test_a_bad_key_is_refused(document: bytes) -> None:
    with pytest.raises(Damaged):
        SealingKey.from_json(document)


def test_a_key_of_zeros_is_refused() -> None:
    with pytest.raises(Damaged):
        SealingKey(bytes(32), b"k" * 16, b"r" * 16)
