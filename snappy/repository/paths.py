"""Paths inside a snapshot: bytes, absolute, ``/``-separated. The one place that says which names are safe."""

from __future__ import annotations

from snappy.errors import UnsafePath

ROOT = b"/"


def is_name(name: bytes) -> bool:
    """Whether ``name`` can only mean a child of the directory that holds it."""
    return name not in (b"", b".", b"..") and b"/" not in name and b"\0" not in name


def check_name(name: bytes) -> bytes:
    """``name``, if it is one. Raises :class:`UnsafePath`."""
    if not is_name(name):
        raise UnsafePath(f"{name!r} is no name for a file: it could lead outside the place given")
    return name


def join(folder: bytes, name: bytes) -> bytes:
    """The path of ``name`` in ``folder``. Raises :class:`UnsafePath`."""
    check_name(name)
    return prefix(folder) + name


def prefix(folder: bytes) -> bytes:
    """What :func:`join` puts before names that were checked."""
    return folder if folder == ROOT else folder + b"/"


def split(path: bytes) -> list[bytes]:
    """The names on the way from the root to ``path``. Raises :class:`UnsafePath`."""
    if not path.startswith(ROOT):
        raise UnsafePath(f"{path!r} is not absolute inside the snapshot")
    return [check_name(name) for name in path[1:].split(b"/")] if path != ROOT else []


def parent(path: bytes) -> bytes:
    """The directory that holds ``path``; the root's parent is the root."""
    return path.rpartition(b"/")[0] or ROOT


def shown(path: bytes) -> str:
    """``path`` for people: bytes that are not UTF-8 as ``\\xNN``."""
    return path.decode("utf-8", "backslashreplace")
