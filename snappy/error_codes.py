"""From an error's code to the error, and from a group of errors to the one that matters."""

from __future__ import annotations

from snappy.errors import SnappyError


def _descendants(kind: type[SnappyError]) -> list[type[SnappyError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in _descendants(child))]


# A plug-in's own error may have the code of one that all know.
BY_CODE: dict[str, type[SnappyError]] = {kind.code: kind for kind in reversed(_descendants(SnappyError))}


def from_code(code: str, message: str, hint: str = "") -> SnappyError:
    """The error that another process named; an unknown code becomes a plain :class:`SnappyError`."""
    return BY_CODE.get(code, SnappyError)(message, hint=hint or None)


def cause_of(error: BaseException) -> BaseException:
    """The error inside nested groups that says most: Snappy's own before others."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    causes = [cause_of(inner) for inner in error.exceptions]
    return next((cause for cause in causes if isinstance(cause, SnappyError)), causes[0])
