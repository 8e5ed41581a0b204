"""``snappy keygen``: the pair of keys by which targets know their core's grants."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from snappy.cli import options, output
from snappy.errors import UsageError


def register(commands: options.Commands) -> None:
    """Add the command."""
    keygen = options.command(commands, "keygen", "make the core's signing key and the public key for its targets")
    keygen.add_argument("file", metavar="FILE", help="where the private key goes; FILE.pub gets the public one")
    keygen.set_defaults(run=_keygen)


def _keygen(arguments: argparse.Namespace) -> int:
    from snappy.bus.grants import SigningKey

    key = SigningKey.generate()
    private, public = Path(arguments.file), Path(f"{arguments.file}.pub")
    _write_new(private, key.to_text(), 0o600)
    _write_new(public, key.public_text(), 0o644)
    text = f"core.signing_key:           {private}\ntarget.*.core_public_key:   {public}"
    output.result({"private": str(private), "public": str(public)}, text, as_json=arguments.json)
    return 0


def _write_new(path: Path, text: str, mode: int) -> None:
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
            file.write(text + "\n")
    except OSError as error:
        raise UsageError(f"cannot make {path}: {error.strerror}") from error
