"""How a forget is told: which snapshots stay, which do not, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from snappy.cli import output

if TYPE_CHECKING:
    from snappy.jobs.messages import Result
    from snappy.jobs.result_words import SnapshotGroup, SnapshotRow


def told(result: Result, *, dry_run: bool) -> str:
    """Each snapshot, whether it is kept, and why; then how many there are."""
    shown = [_shown(group) for group in result.groups]
    rest = result.snapshots + result.removed - sum(len(group.snapshots) for group in result.groups)
    if rest > 0:
        shown.append(f"and {rest} more")
    done = "would keep {} and remove {} snapshots" if dry_run else "kept {} and removed {} snapshots"
    return "\n\n".join([*shown, done.format(result.snapshots, result.removed)])


def _shown(group: SnapshotGroup) -> str:
    parts = (f"host {group.host}" * bool(group.host), _words("path", group.paths), _words("tags", group.tags))
    head = ", ".join(filter(None, parts)) or "all snapshots"
    rows = [_row(snapshot) for snapshot in group.snapshots]
    return f"{head}\n{output.table(('', 'ID', 'TIME (UTC)', 'TAGS', 'WHY'), rows)}"


def _words(name: str, values: list[str] | None) -> str:
    return f"{name} {', '.join(values)}" if values else ""


def _row(snapshot: SnapshotRow) -> list[str]:
    word = "keep" if snapshot.reasons else "remove"
    when = output.moment(snapshot.time.timestamp())
    return [word, snapshot.id[:8], when, ",".join(snapshot.tags or ()), ", ".join(snapshot.reasons)]


def as_restic(result: Result) -> list[dict[str, Any]]:
    """What restic's ``forget --json`` prints, with as much of each snapshot as a result holds."""
    return [_group(group) for group in result.groups]


def _group(group: SnapshotGroup) -> dict[str, Any]:
    kept = [snapshot for snapshot in group.snapshots if snapshot.reasons]
    return {
        "tags": group.tags,
        "host": group.host,
        "paths": group.paths,
        "keep": [_snapshot(snapshot) for snapshot in kept] or None,
        "remove": [_snapshot(snapshot) for snapshot in group.snapshots if not snapshot.reasons] or None,
        "reasons": [{"snapshot": _snapshot(one), "matches": one.reasons} for one in kept] or None,
    }


def _snapshot(snapshot: SnapshotRow) -> dict[str, Any]:
    shown = {
        "time": snapshot.time,
        "paths": snapshot.paths,
        "hostname": snapshot.hostname,
        "tags": snapshot.tags,
        "id": snapshot.id,
        "short_id": snapshot.id[:8],
    }
    return {name: value for name, value in shown.items() if value or name in ("time", "paths")}
