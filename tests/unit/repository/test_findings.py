"""Findings are counted all, and the first thousand kept: damage rather than hints."""

from __future__ import annotations

from snappy.repository.findings import FINDINGS_KEPT, Findings, Kind


def test_damage_comes_first_and_takes_a_hints_place() -> None:
    findings = Findings()
    for number in range(FINDINGS_KEPT):
        findings.add(Kind.PACK_UNLISTED, b"%d" % number, "")
    findings.add(Kind.PACK_UNLISTED, b"too many", "")
    findings.add(Kind.PACK_MISSING, "ab", "it is gone")
    kept = findings.kept()
    assert (findings.damage, findings.hints, len(kept)) == (1, FINDINGS_KEPT + 1, FINDINGS_KEPT)
    assert (kept[0].kind, kept[0].id) == (Kind.PACK_MISSING, "ab")


def test_every_kind_has_a_name_and_a_remedy_of_its_own() -> None:
    assert len({kind.value.name for kind in Kind}) == len(Kind) == len(Kind.__members__)
    assert all(kind.value.remedy and kind.value.name.startswith(kind.value.about) for kind in Kind)
