"""Job ids are UUIDs of version 7: unique, in the order of time, the same for the same message."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from snappy.bus.subjects import TOKEN
from snappy.jobs.identity import follower_id, job_id_of, new_job_id, time_of

NANOSECONDS = st.integers(0, (1 << 48) * 10**6 - 1)


@given(NANOSECONDS, st.integers(1, 1 << 63))
def test_an_id_is_a_uuid_of_version_7_and_a_token(stored_ns: int, sequence: int) -> None:
    job = job_id_of("S", sequence, stored_ns)
    parsed = uuid.UUID(job)
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert parsed.int >> 80 == stored_ns // 10**6
    assert TOKEN.match(job)


def test_the_same_message_gives_the_same_id_and_another_another() -> None:
    assert job_id_of("S", 7, 10**18) == job_id_of("S", 7, 10**18)
    assert len({job_id_of("S", n, 10**18) for n in range(1000)} | {job_id_of("T", 7, 10**18)}) == 1001


def test_who_follows_a_job_has_an_id_that_everybody_finds() -> None:
    job = new_job_id(1_700_000_000.5)
    followers = [follower_id(job, number) for number in range(100)]
    assert followers == [follower_id(job, number) for number in range(100)]
    assert len({job, *followers}) == 101
    assert all(TOKEN.match(one) and time_of(one) == time_of(job) for one in followers)


def test_later_ids_sort_later() -> None:
    ids = [new_job_id(now / 1000) for now in range(1_700_000_000_000, 1_700_000_000_050)]
    assert ids == sorted(ids)
    assert new_job_id(1.0) != new_job_id(1.0)
