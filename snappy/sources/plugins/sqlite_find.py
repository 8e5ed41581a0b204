"""Finds databases by patterns, without leaving the folder that a pattern names."""

from __future__ import annotations

import glob
import os

from snappy.errors import BadOptions, SourceError, SourceMissing, UnsafePath
from snappy.sources.places import Local, parse_place

HEADER = b"SQLite format 3\0"


class Pattern:
    """An absolute path whose later names may match several files. ``claim`` is the file, or the folder in which all
    matches lie. Raises :class:`BadOptions` for a relative one."""

    def __init__(self, text: str) -> None:
        if not text.startswith("/"):
            raise BadOptions(f"{text!r} is not the absolute path of a local file")
        plain, self._rest = _split(os.path.normpath(text))
        place = parse_place(plain)
        assert isinstance(place, Local)
        self.claim = os.path.realpath(place.claim) if self._rest else place.claim

    def found(self) -> dict[bytes, str]:
        """The databases, and beside what is refused the reason. Raises :class:`SourceMissing` for a file that was
        named and is not there, SourceError for one that is no database."""
        if not self._rest:
            _require(self.claim)
            return {os.fsencode(self.claim): ""}
        matching = glob.glob(os.path.join(glob.escape(self.claim), self._rest), recursive=True, include_hidden=True)
        return {os.fsencode(path): self._refusal(path) for path in matching if is_database(path)}

    def _refusal(self, path: str) -> str:
        leads_to = os.path.realpath(path)
        return "" if leads_to == path else f"a symlink on the way leads to {leads_to}"


def is_database(path: str) -> bool:
    """Whether a file begins as one, or may not be read: nobody who wants databases should find that out later."""
    try:
        with open(path, "rb", opener=_open_plainly) as file:
            return file.read(len(HEADER)) == HEADER
    except PermissionError:
        return os.path.isfile(path)
    except OSError:
        return False


def _open_plainly(path: str, flags: int) -> int:
    """Not waiting for who writes to a fifo."""
    return os.open(path, flags | os.O_NONBLOCK)


def _split(text: str) -> tuple[str, str]:
    """What stands before the first name with a wildcard, and the rest."""
    names = text.split("/")
    first = next((number for number, name in enumerate(names) if glob.has_magic(name)), len(names))
    return "/".join(names[:first]) or "/", "/".join(names[first:])


def _require(path: str) -> None:
    if not os.path.lexists(path):
        raise SourceMissing(f"{path} does not exist")
    if os.path.realpath(path) != path:
        raise UnsafePath(f"{path} is a symlink", hint="name the file that it leads to")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{path} cannot be read", hint="let the source service's user read it")
    if not is_database(path):
        raise SourceError(f"{path} is no SQLite database", hint="back up what is none by the plug-in files")
