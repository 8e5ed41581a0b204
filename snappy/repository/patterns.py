"""Which paths a list of patterns selects: gitignore's language, with the snapshot's root as its folder.

One difference, so that patterns written for restic keep their meaning: a pattern that does not begin with ``/``
matches at any depth, even with a slash inside (``doc/api`` is ``**/doc/api``). A pattern that selects a directory
selects all below it; of several the last one decides, and ``!`` takes back.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from pathspec import GitIgnoreSpec

from snappy.errors import BadOptions

WILDCARDS = frozenset("*?[\\")


class Patterns:
    """A compiled list of patterns. Raises :class:`BadOptions` for one that is malformed."""

    def __init__(self, lines: Iterable[str], *, ignore_case: bool = False) -> None:
        wanted = [_anchored(line.lower() if ignore_case else line) for line in lines if _says_something(line)]
        self._ignore_case = ignore_case
        self._spec = _compile(wanted)
        self._prefixes = [_literal_prefix(line) for line in wanted if not line.startswith("!")]
        self._empty = not wanted

    def __bool__(self) -> bool:
        return not self._empty

    def match(self, path: bytes, *, directory: bool) -> bool:
        """Whether ``path`` is selected, by itself or with a directory above it."""
        if self._empty:
            return False
        text = self._text(path)
        return self._spec.match_file(text + "/" if directory else text)

    def may_match_below(self, folder: bytes) -> bool:
        """Whether something below ``folder`` can be selected; true when in doubt."""
        names = self._text(folder).split("/") if folder != b"/" else []
        return any(_agree(prefix, names) for prefix in self._prefixes)

    def _text(self, path: bytes) -> str:
        text = os.fsdecode(path)[1:]
        return text.lower() if self._ignore_case else text


def _compile(lines: list[str]) -> GitIgnoreSpec:
    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        raise BadOptions(f"a pattern is malformed: {error}") from error


def _says_something(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("#")


def _anchored(line: str) -> str:
    sign, body = ("!", line[1:]) if line.startswith("!") else ("", line)
    anywhere = not body.startswith(("/", "**/")) and "/" in body.rstrip("/")
    return f"{sign}**/{body}" if anywhere else line


def _literal_prefix(line: str) -> list[str]:
    """The leading names of an anchored pattern that hold no wildcard; none for a pattern that floats."""
    if not line.startswith("/"):
        return []
    names = line.strip("/").split("/")
    plain = [not WILDCARDS.intersection(name) for name in names]
    return names[: plain.index(False)] if False in plain else names


def _agree(prefix: list[str], names: list[str]) -> bool:
    return all(one == other for one, other in zip(prefix, names, strict=False))
