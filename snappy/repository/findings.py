"""What a check of a repository finds: values, each of a kind that says what it means and what helps."""

from __future__ import annotations

import threading
from enum import Enum
from typing import Literal, NamedTuple

import msgspec

FINDINGS_KEPT = 1000

_REPAIR_INDEX = "`snappy repair index` lists what the packs hold"
_REPAIR_PACKS = "`snappy repair packs` saves the blobs that are whole; then back up, and `snappy repair snapshots`"
_REPAIR_SNAPSHOTS = "back up again; what is still lost, `snappy repair snapshots` leaves out"
_RIGHT = "repair again with the right to delete there"
_PRUNE = "no harm: `snappy prune` removes it"


class _Meaning(NamedTuple):
    name: str
    about: Literal["config", "key", "snapshot", "index", "pack", "blob", "tree"]
    remedy: str
    damage: bool = True


class Kind(Enum):
    """What can be found, the kind of object it is about, what helps, and whether it is damage or a hint."""

    CONFIG_DAMAGED = _Meaning("config-damaged", "config", "bring it back: nothing can be read without it")
    """Its id is ``config``."""
    KEY_DAMAGED = _Meaning("key-damaged", "key", "add a key with that password again, and remove this one")
    SNAPSHOT_DAMAGED = _Meaning("snapshot-damaged", "snapshot", "it is lost: remove its file, and back up again")
    INDEX_DAMAGED = _Meaning("index-damaged", "index", _REPAIR_INDEX)
    PACK_LISTING = _Meaning("pack-listing", "pack", f"{_REPAIR_INDEX}; `--read-all-packs` lists each anew")
    """What index files say of the pack is not right."""
    PACK_MISSING = _Meaning("pack-missing", "pack", f"bring it back, or {_REPAIR_INDEX}; then {_REPAIR_SNAPSHOTS}")
    PACK_SIZE = _Meaning("pack-size", "pack", _REPAIR_PACKS)
    PACK_CHANGED = _Meaning("pack-changed", "pack", _REPAIR_PACKS)
    """Its SHA-256 is not its name."""
    PACK_HEADER = _Meaning("pack-header", "pack", _REPAIR_PACKS)
    """It was written so: its header cannot be read."""
    BLOB_DAMAGED = _Meaning("blob-damaged", "blob", _REPAIR_PACKS)
    """It was written so: the pack is what its name says."""
    BLOB_MISSING = _Meaning("blob-missing", "blob", _REPAIR_SNAPSHOTS)
    TREE_DAMAGED = _Meaning("tree-damaged", "tree", _REPAIR_SNAPSHOTS)
    TREE_MISSING = _Meaning("tree-missing", "tree", _REPAIR_SNAPSHOTS)
    BLOB_LOST = _Meaning("blob-lost", "blob", _REPAIR_SNAPSHOTS)
    """A repair of packs found no copy of it that is whole."""
    PACK_LOST = _Meaning("pack-lost", "pack", _REPAIR_SNAPSHOTS)
    """No index file lists it, and its header cannot be read: what lies in it nobody knows."""
    SNAPSHOT_LOST = _Meaning("snapshot-lost", "snapshot", "`snappy repair snapshots --forget ID` removes it")
    """Its root cannot be read."""
    INDEX_LEFT = _Meaning("index-left", "index", _RIGHT)
    PACK_LEFT = _Meaning("pack-left", "pack", _RIGHT)
    SNAPSHOT_LEFT = _Meaning("snapshot-left", "snapshot", _RIGHT)
    """A repair has replaced it, or knows it to be useless, and may not remove it."""
    PACK_UNLISTED = _Meaning("pack-unlisted", "pack", _PRUNE, damage=False)
    PACK_REPEATED = _Meaning("pack-repeated", "pack", _PRUNE.replace("removes it", "lists it once"), damage=False)


class Finding(msgspec.Struct, frozen=True):
    """One thing that was found. ``id`` is the object's, in hexadecimal."""

    kind: Kind
    id: str
    message: str

    @property
    def is_damage(self) -> bool:
        """Rather than a hint."""
        return self.kind.value.damage


class Findings:
    """Findings in the order they came. All are counted, the first thousand kept, damage before hints. Thread-safe."""

    def __init__(self) -> None:
        self.damage = self.hints = 0
        self._kept: list[Finding] = []
        self._lock = threading.Lock()

    def add(self, kind: Kind, found: bytes | str, message: str) -> None:
        """Count one more, about the object of that id."""
        name = found if isinstance(found, str) else found.hex()
        with self._lock:
            if kind.value.damage:
                self.damage += 1
            else:
                self.hints += 1
            self._keep(Finding(kind, name, message))

    def absorb(self, others: Findings) -> None:
        """Count all of theirs as if they came now."""
        with self._lock:
            self.damage += others.damage
            self.hints += others.hints
            for finding in others.kept():
                self._keep(finding)

    def kept(self) -> list[Finding]:
        """Damage first."""
        with self._lock:
            return sorted(self._kept, key=lambda finding: not finding.is_damage)

    def _keep(self, finding: Finding) -> None:
        if len(self._kept) < FINDINGS_KEPT:
            self._kept.append(finding)
        elif finding.is_damage and (hint := next((one for one in self._kept if not one.is_damage), None)):
            self._kept[self._kept.index(hint)] = finding
