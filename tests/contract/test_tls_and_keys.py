"""TLS and nkeys against a real nats-server: what is right gets in, and carries messages of all sizes; what is wrong is
told why."""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import nkeys
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from nats.aio.msg import Msg

from snappy.bus.connection import Bus
from snappy.config import Nats, Secret
from snappy.errors import BusDenied, BusUnavailable
from tests.support.natsserver import NatsServer, nats_server

LIMIT = 2 << 20
SIZES = (0, 1, 64 << 10, (1 << 20) + 13)


class Authority:
    """Signs certificates for the loopback, below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority {folder.name}")])
        extension = x509.BasicConstraints(ca=True, path_length=None)
        made = self._builder(self._name, self._key.public_key()).add_extension(extension, critical=True)
        self.file = self._write("ca.pem", made.sign(self._key, hashes.SHA256()).public_bytes(_PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """The files of a certificate and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        made = self._builder(subject, key.public_key()).add_extension(address, critical=False)
        secret = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        certificate = made.sign(self._key, hashes.SHA256()).public_bytes(_PEM)
        return self._write(f"{name}.pem", certificate), self._write(f"{name}.key", secret)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        today = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder(subject_name=subject, issuer_name=self._name, public_key=key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(today - datetime.timedelta(days=1))
            .not_valid_after(today + datetime.timedelta(days=1))
        )

    def _write(self, name: str, content: bytes) -> Path:
        (self.folder / name).write_bytes(content)
        return self.folder / name


_PEM = serialization.Encoding.PEM


@contextmanager
def served(folder: Path, *lines: str) -> Iterator[NatsServer]:
    with nats_server(folder, "\n".join((f"max_payload: {LIMIT}", *lines))) as server:
        yield server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ours")


@pytest.fixture
def secure(tmp_path: Path, authority: Authority) -> Iterator[NatsServer]:
    """Asks for a certificate, and shows one."""
    certificate, key = authority.issue("server")
    lines = f'tls {{ cert_file: "{certificate}", key_file: "{key}", ca_file: "{authority.file}", verify: true }}'
    with served(tmp_path, lines) as server:
        yield server


def client_files(authority: Authority) -> dict[str, Any]:
    certificate, key = authority.issue("client")
    return {"tls_ca": str(authority.file), "tls_certificate": str(certificate), "tls_key": str(key)}


def address(server: NatsServer) -> str:
    return server.url.replace("nats://", "tls://")


async def exchange(settings: Nats) -> None:
    """Bodies of all sizes go out and come back as they were."""
    asking = await Bus.connect(settings, name="asking", user="asking")
    answering = await Bus.connect(settings, name="answering", user="answering")

    async def answer(message: Msg) -> None:
        await answering.respond(message, message.data)

    try:
        await answering.listen("echo", "", answer)
        for size in SIZES:
            body = os.urandom(size)
            assert await asking.request("echo", body, timeout=10) == body
    finally:
        await asking.drain()
        await answering.drain()


async def test_messages_of_all_sizes_over_tls(secure: NatsServer, authority: Authority) -> None:
    files = client_files(authority)
    await exchange(Nats(url=address(secure), **files))
    await exchange(Nats(url=secure.url, **files))  # the server demands it by itself


async def test_it_comes_back_over_tls(secure: NatsServer, authority: Authority) -> None:
    files = client_files(authority)
    bus = await Bus.connect(Nats(url=address(secure), **files), name="asking", user="asking")

    async def answer(message: Msg) -> None:
        await bus.respond(message, message.data)

    try:
        await bus.listen("echo", "", answer)
        await secure.restart_meanwhile()
        with suppress(BusUnavailable):  # lost with a connection that is not yet known to be gone
            await bus.request("echo", b"", timeout=20)
        assert await bus.request("echo", bytes(1 << 20), timeout=20) == bytes(1 << 20)
    finally:
        await bus.drain()


async def test_a_server_of_another_authority_is_refused(secure: NatsServer, tmp_path: Path) -> None:
    other = Authority(tmp_path / "theirs")
    with pytest.raises(BusUnavailable, match="TLS"):
        await Bus.connect(Nats(url=address(secure), tls_ca=str(other.file)), name="asking", connect_timeout=3)


async def test_without_a_certificate_of_our_own(secure: NatsServer, authority: Authority) -> None:
    with pytest.raises(BusUnavailable):
        await Bus.connect(Nats(url=address(secure), tls_ca=str(authority.file)), name="asking", connect_timeout=3)


async def test_an_nkey_is_let_in_and_another_is_not(tmp_path: Path) -> None:
    ours, theirs = (nkeys.from_seed(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)) for _ in range(2))
    with served(tmp_path, f'authorization {{ users: [{{ nkey: "{ours.public_key.decode()}" }}] }}') as server:
        await exchange(Nats(url=server.url, nkey_seed=kept(tmp_path / "ours.seed", ours)))
        with pytest.raises(BusDenied, match="credentials"):
            await Bus.connect(Nats(url=server.url, nkey_seed=kept(tmp_path / "theirs.seed", theirs)), name="asking")


def kept(path: Path, key: nkeys.KeyPair) -> Secret:
    path.touch(mode=0o600)
    path.write_bytes(key.seed)
    return Secret(file=str(path))
