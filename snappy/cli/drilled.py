"""What a drill proved, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snappy.cli import output

if TYPE_CHECKING:
    from snappy.jobs.messages import Drilled, Result


def told(drilled: Drilled, result: Result) -> str:
    """In two or three lines."""
    counts = f"{result.files} files, {result.directories} directories, {output.size(result.bytes_processed)}"
    which = f"a sample of {drilled.sample} (seed {drilled.seed})" if drilled.sample else "all of it"
    first = f"the first byte after {output.duration(drilled.first_byte)}, " if drilled.first_byte else ""
    lines = [
        f"proved snapshot {result.snapshot[:8]}, {which}: {counts}",
        f"{first}restored in {output.duration(drilled.recovery)}; compared in {output.duration(drilled.proof)}",
    ]
    if drilled.program:
        lines.append(f"{drilled.program} was content with it, in {output.duration(drilled.program_seconds)}")
    return "\n".join(lines)


def tell_faults(drilled: Drilled) -> None:
    """What cannot be restored, each with its reason."""
    for fault in drilled.faults:
        output.note(f"not proven: {fault.path}: {fault.message}")
    if drilled.fault_count > len(drilled.faults):
        output.note(f"and {drilled.fault_count - len(drilled.faults)} more, which the service's log names")
