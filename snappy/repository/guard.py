"""What fails for one object of a restore is that object's problem; a full place ends the whole."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from snappy.errors import NoSpace, UnsafePath
from snappy.repository.progress import Problems

FULL = (errno.ENOSPC, errno.EDQUOT)


class Guard:
    """A context for what is done with the object at ``path``. An ``OSError`` or :class:`UnsafePath` in it ends the
    context, becomes one of ``problems``, and is raised no further. Raises :class:`NoSpace`."""

    __slots__ = ("_path", "_problems", "_remarks", "failed")

    def __init__(self, path: bytes, problems: Problems, remarks: Problems) -> None:
        self._path, self._problems, self._remarks = path, problems, remarks
        self.failed = False

    def remark(self, messages: Iterable[str]) -> None:
        """Note what could not be kept."""
        for message in messages:
            self._remarks.add(self._path, message)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, UnsafePath):
            self._problems.add(self._path, error.message, error.code)
        elif isinstance(error, OSError):
            if error.errno in FULL:
                raise NoSpace("the place restored to is full", hint="free space there, and restore again") from error
            self._problems.add(self._path, error.strerror or str(error))
        else:
            return False
        self.failed = True
        return True
