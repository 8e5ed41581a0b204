"""The choice of the next job: always the highest effective priority, then the oldest, and nothing starves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from snappy.jobs.waiting import Waiting, effective

PRIORITIES = st.integers(-10, 10)
AGEING = 100.0
JOBS = st.lists(st.tuples(PRIORITIES, st.floats(0, 5000)), max_size=30)


def best_first(jobs: dict[str, tuple[int, float]], now: float) -> list[str]:
    """The definition, without anything clever."""
    return sorted(jobs, key=lambda job: (-effective(*jobs[job], now, AGEING), jobs[job][1], job))


@given(JOBS, st.floats(0, 10_000), st.data())
def test_the_order_is_that_of_the_definition_whatever_came_and_went(
    made: list[tuple[int, float]], now: float, data: st.DataObject
) -> None:
    waiting, jobs = Waiting(), {f"job-{number}": each for number, each in enumerate(made)}
    for job, (priority, since) in jobs.items():
        waiting.add(job, priority, since)
    for job in data.draw(st.lists(st.sampled_from(sorted(jobs)), unique=True)) if jobs else []:
        waiting.discard(job)
        del jobs[job]
    for job in data.draw(st.lists(st.sampled_from(sorted(jobs)), unique=True)) if jobs else []:
        jobs[job] = data.draw(st.tuples(PRIORITIES, st.floats(0, 5000)))
        waiting.add(job, *jobs[job])
    assert list(waiting.in_order(now, AGEING)) == best_first(jobs, now)
    assert len(waiting) == len(jobs)


@given(PRIORITIES, st.lists(PRIORITIES, min_size=1), st.integers(1, 5))
def test_nothing_starves(priority: int, arrivals: list[int], per_step: int) -> None:
    """However many come, however urgent, and though the queue is never empty: whoever waits runs after those who came
    within 21 steps of it, and no later."""
    waiting = Waiting()
    waiting.add("patient", priority, 0.0)
    interval, overtaken = AGEING / per_step, 0
    while True:
        now = overtaken * interval
        waiting.add(f"urgent-{overtaken}", arrivals[overtaken % len(arrivals)], now)
        first = next(waiting.in_order(now, AGEING))
        if first == "patient":
            break
        waiting.discard(first)
        overtaken += 1
        assert overtaken <= 21 * per_step


def test_an_equal_priority_is_first_come_first_served() -> None:
    waiting = Waiting()
    for number in (3, 1, 2):
        waiting.add(f"job-{number}", 0, float(number))
    assert list(waiting.in_order(2.5, AGEING)) == ["job-1", "job-2", "job-3"]
