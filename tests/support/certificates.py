"""Certificates for servers of tests."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_certificate(folder: Path, subject: str = "/CN=localhost") -> None:
    """The files ``cert`` and ``key``: of the host ``localhost``, vouching for itself, for both ends."""
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    words += ["-keyout", f"{folder}/key", "-out", f"{folder}/cert", "-subj", subject]
    words += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(words, check=True, capture_output=True)
