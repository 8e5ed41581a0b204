"""Which promise is made of which source."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from snappy import config
from snappy.jobs.promises import Promises
from snappy.jobs.protection import of_backup
from snappy.jobs.protection_words import Good, Protection
from snappy.jobs.schedule_words import Schedule

COMMAND: dict[str, Any] = {"source": "site1", "target": "vault", "plugin": "files", "options": {"paths": ["/srv"]}}
HOUR = 3600
SOURCE = replace(of_backup(COMMAND, 5.0), host="db1", backups=[Good(job="j", snapshot="s", at=9.0)])


def schedule(name: str = "nightly", kind: str = "backup", **fields: Any) -> Schedule:
    fields = {"command": COMMAND, "created": 7.0, **fields}
    return Schedule(name=name, id=name, owner="alice", kind=kind, **fields)


def promised(
    *configured: config.Promise, schedules: list[Schedule] | None = None, of: Protection = SOURCE
) -> tuple[int, int]:
    promise = Promises(configured, schedules or []).of(of)
    return promise.max_age, promise.max_drill_age


def test_the_first_that_names_a_source_counts() -> None:
    rule = config.Promise(max_age="26h", max_drill_age="30d")
    assert promised(rule) == (26 * HOUR, 720 * HOUR)
    assert promised(config.Promise(target="vault"), rule) == (0, 0)
    for other in ({"source": "site2"}, {"target": "second"}, {"host": "db2"}, {"paths": ["/etc"]}):
        assert promised(config.Promise(**other, max_age="1h"), rule) == (26 * HOUR, 720 * HOUR)
    for same in ({"source": "site1"}, {"target": "vault"}, {"host": "db1"}, {"paths": ["/srv"]}):
        assert promised(config.Promise(**same, max_age="1h"), rule) == (HOUR, 0)
    assert promised() == (0, 0)


def test_of_schedules_and_configuration_the_strictest_counts() -> None:
    other = schedule("other", command={**COMMAND, "target": "x"}, max_age=1)
    both = [schedule(max_age=9), schedule("often", max_age=5), other]
    assert promised(config.Promise(max_age="26h"), schedules=both) == (5, 0)
    assert promised(config.Promise(max_age="2s"), schedules=both) == (2, 0)
    drills = {"source": "site1", "target": "vault"}
    some = [
        schedule("d1", "drill", command={**drills, "host": "db1"}, max_age=8),
        schedule("d2", "drill", command={**drills, "host": "db2"}, max_age=3),
        schedule("d3", "drill", command=drills),
        schedule("c", "check", command=drills, max_age=1),
    ]
    assert promised(schedules=some) == (0, 8)
    assert Promises([], some).of(SOURCE).drills_since == 7.0
    assert Promises([config.Promise(max_drill_age="7s")], some).of(SOURCE).drills_since == 0.0


def test_what_is_scheduled_or_named_in_full_is_expected() -> None:
    assert list(Promises([], [schedule()]).expected([])) == [SOURCE.id]
    full = config.Promise(source="site1", target="vault", paths=["/srv/"], max_age="1h")
    (named,) = Promises([full], []).expected([]).values()
    assert (named.id, named.paths) == (SOURCE.id, ["/srv"])
    assert promised(full, of=named) == (HOUR, 0)
    for partly in (replace(full, source="*"), replace(full, target="*"), replace(full, paths=[])):
        assert Promises([partly], []).expected([]) == {}


def test_a_source_that_is_named_is_expected_once_whatever_its_command_says() -> None:
    """It knows its host, and a link resolved; the promise does not."""
    full = config.Promise(source="site1", target="vault", paths=["/srv"], max_age="1h")
    with_host = replace(of_backup({**COMMAND, "host": "db1"}, 1.0), backups=SOURCE.backups)
    assert with_host.id != SOURCE.id
    assert Promises([full], []).expected([with_host]) == {}
    assert promised(full, of=with_host) == (HOUR, 0)
    resolved = replace(SOURCE, paths=["/data/srv"])
    assert Promises([full], []).expected([resolved]) == {}
    assert promised(full, of=resolved) == (HOUR, 0)


def test_the_next_run() -> None:
    drills = schedule("drills", "drill", command={"source": "site1", "target": "vault"}, next_slot=40.0)
    other = schedule("x", command={**COMMAND, "target": "x"}, next_slot=1.0)
    upcoming = Promises([], [schedule(next_slot=50.0), drills, schedule("done"), other]).upcoming(SOURCE)
    assert upcoming is not None
    assert (upcoming.schedule, upcoming.kind, upcoming.at) == ("drills", "drill", 40.0)
    assert Promises([], [schedule()]).upcoming(SOURCE) is None
