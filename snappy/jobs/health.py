"""What follows from a check for what is known of a repository, and which share of it is to be read next."""

from __future__ import annotations

import re

import msgspec

from snappy.jobs.repository_words import RepositoryState

ALL, STRUCTURE, RANDOM = "all", "", "random"
NEXT = "next/"
_SHARE = re.compile(r"([0-9]{1,3})/([0-9]{1,3})\Z")
_MOST_SHARES = 256
_MOST_DAMAGE = 256
"""Portions with damage; with more of them all is taken for damaged. Whatever workers say, a state stays small."""
_MOST_ROTATIONS = 8


def after_check(
    before: RepositoryState, *, job: str, portion: str, is_damaged: bool, repository: str, at: float
) -> RepositoryState:
    """The state after a check that ended ``at`` some time (Unix seconds). A repeat changes nothing."""
    portion = _known(portion)
    damage = {each: by for each, by in before.damage.items() if by == job or not _covers(portion, each)}
    if is_damaged:
        damage = _with_damage(damage, portion, job)
    state = "damaged" if damage else "sound"
    changed = (state, damage) != (before.state, before.damage)
    return msgspec.structs.replace(
        before,
        repository=repository or before.repository,
        state=state,
        since=at if state != before.state else before.since,
        job=job if changed and (is_damaged or state != before.state) else before.job,
        damage=damage,
        shares=_shares_read(before.shares, portion, at),
    )


def after_bad_drill(before: RepositoryState, *, job: str, repository: str, at: float) -> RepositoryState:
    """The state after a drill that met damage: what a drill reads is as good as chosen at random. One that meets none
    says nothing of the rest."""
    return msgspec.structs.replace(
        before,
        repository=repository or before.repository,
        state="damaged",
        since=before.since if before.state == "damaged" else at,
        job=job,
        damage=_with_damage(before.damage, RANDOM, job),
    )


def _with_damage(damage: dict[str, str], portion: str, job: str) -> dict[str, str]:
    return {**damage, portion: job} if len(damage) < _MOST_DAMAGE else {ALL: job}


def _known(portion: str) -> str:
    if portion in (ALL, STRUCTURE):
        return portion
    match = _SHARE.match(portion)
    part, parts = map(int, match.groups()) if match else (0, 0)
    return f"{part}/{parts}" if 1 <= part <= parts <= _MOST_SHARES else RANDOM


def _covers(portion: str, damaged: str) -> bool:
    """Whether a check of ``portion`` reads all that one of ``damaged`` read. Nobody knows what was read at random."""
    return portion == ALL or damaged == STRUCTURE or (portion == damaged != RANDOM)


def _shares_read(shares: dict[str, list[float]], portion: str, at: float) -> dict[str, list[float]]:
    if portion == ALL:
        return {parts: [at] * len(times) for parts, times in shares.items()}
    match = _SHARE.match(portion)
    if match is None:
        return shares
    times = list(shares.get(match[2], [0.0] * int(match[2])))
    times[int(match[1]) - 1] = at
    others = sorted((parts for parts in shares if parts != match[2]), key=lambda parts: max(shares[parts]))
    return {parts: shares[parts] for parts in others[1 - _MOST_ROTATIONS :]} | {match[2]: times}


def next_share(state: RepositoryState, wanted: str) -> str:
    """Of ``next/7`` the share that was read longest ago, or never: ``1/7`` to ``7/7``."""
    parts = wanted.removeprefix(NEXT)
    times = state.shares.get(parts, [0.0])
    return f"{times.index(min(times)) + 1}/{parts}"
