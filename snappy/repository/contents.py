"""What befalls a file while it is read into blobs, told alike by whichever process reads it."""

from __future__ import annotations

from typing import BinaryIO


def unreadable(error: OSError) -> str:
    """Why a file was left out."""
    if isinstance(error, FileNotFoundError):
        return "it vanished before it could be read"
    return f"it cannot be read: {error.strerror or error}"


def torn(changed: str, expected: int, size: int) -> str:
    """Why a file of ``size`` bytes, where ``expected`` were, may be torn; empty if nothing speaks for it."""
    if not changed and expected and size != expected:
        changed = f"it had {expected} bytes and gave {size}"
    return f"its content may be torn: {changed}" if changed else ""


def passed_over(file: BinaryIO, size: int) -> bool:
    """Whether the file let us pass over its first ``size`` bytes. A chunk depends on nothing before it: what follows
    is cut the same."""
    if not (size and file.seekable()):
        return False
    file.seek(size)
    return True
