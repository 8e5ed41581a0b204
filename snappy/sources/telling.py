"""What the engine found, in the words of messages: no more of it than fits into one, and into a job's record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from snappy import log
from snappy.jobs import messages
from snappy.jobs.messages import Warn
from snappy.repository.entries import Problem
from snappy.repository.findings import Finding

FINDINGS_TOLD = 100
WARNINGS_TOLD = 100
LETTERS_TOLD = 300
"""Of a path or a sentence in a warning."""

_log = log.get(__name__)


def findings(found: Sequence[Finding]) -> list[messages.Finding]:
    """The first hundred; the log names the others."""
    for finding in found[FINDINGS_TOLD:]:
        _log.error("found too", kind=finding.kind.value.name, id=finding.id, reason=finding.message)
    return [_finding(finding) for finding in found[:FINDINGS_TOLD]]


def _finding(finding: Finding) -> messages.Finding:
    meaning = finding.kind.value
    return messages.Finding(
        kind=meaning.name,
        damage=meaning.damage,
        object=meaning.about,
        id=finding.id,
        message=finding.message,
        remedy=meaning.remedy,
    )


def warnings(problems: Iterable[Problem]) -> list[Warn]:
    """The first hundred."""
    shown = list(problems)[:WARNINGS_TOLD]
    return [Warn(path=shortened(path(problem.path)), message=shortened(problem.message)) for problem in shown]


def shortened(text: str) -> str:
    """Without its middle, if it is long."""
    half = LETTERS_TOLD // 2
    return text if len(text) <= LETTERS_TOLD else f"{text[:half]}…{text[-half:]}"


def path(raw: bytes) -> str:
    """A path for people and JSON: bytes that are no UTF-8 are written as ``\\xff``."""
    return raw.decode(errors="backslashreplace")
