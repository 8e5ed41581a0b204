"""What a backup of files leaves out: by pattern, by size, by a tag file in the directory.

A directory that holds a tag file (``exclude_if_present``, or a ``CACHEDIR.TAG`` with the signature of
https://bford.info/cachedir/) is kept with the tag file alone, as restic does.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from snappy.errors import BadOptions
from snappy.repository.patterns import Patterns
from snappy.sources.local_node import READ_FLAGS

CACHE_TAG = b"CACHEDIR.TAG"
CACHE_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Tag:
    """A file whose presence excludes its neighbours; where ``header`` is not empty, it must begin with that."""

    name: bytes
    header: bytes = b""

    @classmethod
    def parse(cls, text: str) -> Tag:
        """From ``NAME`` or ``NAME:HEADER``. Raises :class:`BadOptions`."""
        name, _, header = text.partition(":")
        if not name or "/" in name:
            raise BadOptions(f"exclude_if_present: {text!r} does not begin with the name of a file")
        return cls(os.fsencode(name), os.fsencode(header))

    def stands_in(self, folder: int, names: list[bytes]) -> bool:
        """Whether the directory open as ``folder``, which lists ``names``, holds the tag. Raises ``OSError``."""
        return self.name in names and (not self.header or self._begins(folder))

    def _begins(self, folder: int) -> bool:
        handle = os.open(self.name, READ_FLAGS, dir_fd=folder)
        try:
            is_file = stat.S_ISREG(os.fstat(handle).st_mode)
            return is_file and os.read(handle, len(self.header)) == self.header
        finally:
            os.close(handle)


class Exclusion:
    """All the rules of one backup. Raises :class:`BadOptions` for a malformed pattern."""

    def __init__(
        self,
        patterns: Iterable[str] = (),
        patterns_ignoring_case: Iterable[str] = (),
        tags: Iterable[Tag] = (),
        larger_than: int | None = None,
    ) -> None:
        self.tags = list(tags)
        self.larger_than = larger_than
        both = (Patterns(patterns), Patterns(patterns_ignoring_case, ignore_case=True))
        self._patterns = [some for some in both if some]

    def __bool__(self) -> bool:
        """Whether anything may be left out by its path or size."""
        return bool(self._patterns) or self.larger_than is not None

    def by_path(self, path: bytes, *, directory: bool) -> bool:
        """Whether a pattern leaves the object out."""
        return any(some.match(path, directory=directory) for some in self._patterns)

    def by_size(self, size: int) -> bool:
        """Whether a file of ``size`` bytes is too large."""
        return self.larger_than is not None and size > self.larger_than

    def tag_of(self, folder: int, names: list[bytes], warn: Warn) -> bytes | None:
        """The name of the tag that excludes the rest of the directory, or ``None``."""
        return next((tag.name for tag in self.tags if _stands(tag, folder, names, warn)), None)


def _stands(tag: Tag, folder: int, names: list[bytes], warn: Warn) -> bool:
    try:
        return tag.stands_in(folder, names)
    except OSError as error:
        warn(f"the tag file {os.fsdecode(tag.name)} cannot be read: {error.strerror}")
        return False
