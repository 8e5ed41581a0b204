"""``snappy.toml`` as structs: one section a role, so that a process is given what its role needs and no more."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta


class Secret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a secret is found: exactly one of the three. The secret itself never stands in the configuration."""

    file: str = ""
    env: str = ""
    command: str = ""


class Nats(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach the bus. Without ``url`` a command starts the embedded server."""

    url: str = ""
    user: str = ""
    """Also the caller's token in subjects; empty: authentication is off."""
    password: Secret | None = None
    nkey_seed: Secret | None = None
    tls_ca: str = ""
    tls_certificate: str = ""
    tls_key: str = ""


class Allow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one submitter may ask of a source service. ``*`` in a list stands for all."""

    kinds: list[str] = []
    plugins: list[str] = []
    targets: list[str] = []
    read: list[str] = []
    """Absolute folders or URL prefixes that a backup may read."""
    restore_to: list[str] = []
    """Absolute folders or URL prefixes that a restore may write to."""


class Core(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    signing_key: Secret | None = None
    """The Ed25519 key that signs grants, base64url."""
    hold_seconds: Annotated[float, Meta(gt=0)] = 30.0
    max_attempts: Annotated[int, Meta(ge=1)] = 3
    max_lost_attempts: Annotated[int, Meta(ge=1)] = 10
    keep_jobs_days: float = 30.0
    replicas: Annotated[int, Meta(ge=1, le=5)] = 1


class Audit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str = ""


class SourceService(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One source service; the section's name is its name, and its user on the bus."""

    replica: str = ""
    keys: dict[str, Secret] = {}
    allow: dict[str, Allow] = {}
    scratch: str = ""
    """The folder that any submitter may restore to; empty: none."""
    storage_options: dict[str, dict[str, Any]] = {}
    """fsspec options for URL sources, by protocol."""
    host: str = ""
    """The host name written into snapshots; by default the machine's."""


class TargetService(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One target service; the section's name is its name, and its user on the bus."""

    url: str
    core_public_key: Secret | None = None
    replica: str = ""
    rights: str = "rlw"
    """r read, l list, w write new, W overwrite, d delete. ``rlw`` is append-only; locks stay deletable."""
    storage_options: dict[str, Any] = {}
    idle_seconds: float = 60.0


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    prefix: str = "snappy"
    state_dir: str = ""
    log_level: str = "info"
    nats: Nats = Nats()
    core: Core | None = None
    audit: Audit | None = None
    source: dict[str, SourceService] = {}
    target: dict[str, TargetService] = {}
