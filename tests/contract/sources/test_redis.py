"""What is Redis's own, with a real server: each type of value, how a replica is fed, what a server starts on, who may
do what, and what dead restores leave."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from snappy.errors import AttemptOver, BadOptions, Damaged, SnappyError, SourceDenied, SourceError, SourceUnavailable
from snappy.repository.entries import Node
from snappy.sources.plugins import redis_copy, redis_sink
from snappy.sources.plugins.redis import RedisOptions, RedisSource
from snappy.sources.plugins.redis_copy import BATCH_BYTES
from snappy.sources.plugins.redis_sink import RedisRestore
from snappy.sources.site import Site
from tests.support.certificates import make_certificate
from tests.support.ports import held_ports
from tests.support.redis import Redis

pytestmark = pytest.mark.redis

EVERY_TYPE: list[tuple[str | bytes | int, ...]] = [
    ("SET", b"\x00\xff binary*[", b"\r\n\x00"),
    ("SET", "number", 12345),
    ("SET", "passing", "x", "PX", 10_000_000),
    ("RPUSH", "list", *range(1000)),
    ("SADD", "integers", *range(100)),
    ("SADD", "set", "alone"),
    ("ZADD", "sorted", "1.5", "a", "-inf", "b"),
    ("HSET", "hash", "field", "x" * 1000),
    ("XADD", "stream", "1-1", "field", "value"),
    ("XGROUP", "CREATE", "stream", "readers", "0"),
    ("XREADGROUP", "GROUP", "readers", "one", "STREAMS", "stream", ">"),
    ("PFADD", "loglog", "a", "b"),
    ("FUNCTION", "LOAD", "REPLACE", "#!lua name=lib\nredis.register_function('f', function() return 7 end)"),
]
BACKUP_USER = "on >pw +client|setname +info +replconf +psync"
RESTORE_USER = (
    "on >pw ~* +client|setname +client|list +info +select +scan +restore +unlink +del +rename +eval "
    "+function|list +function|restore"
)


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    with Redis.running() as running:
        yield running


@pytest.fixture(autouse=True)
def _emptied(server: Redis) -> None:
    server.do(("FLUSHALL",), ("FUNCTION", "FLUSH"))


@pytest.fixture
def site(tmp_path: Path, server: Redis) -> Site:
    return site_of(tmp_path, server)


def site_of(folder: Path, server: Redis, **more: Any) -> Site:
    settings = server.named(folder)
    settings["more"] = settings["main"] | more
    return Site("site", {"redis": settings}, work=str(folder / "work"))


async def backed_up(site: Site, name: str = "main") -> dict[str, bytes]:
    source = RedisSource(RedisOptions(server=name), site)
    found = {}
    async with source.snap() as frozen:
        for entry in source.export(frozen):
            if entry.open:
                with entry.open() as file:
                    found[entry.path.decode()] = file.read()
    return found


def sink_of(site: Site, **options: Any) -> Any:
    given = RedisRestore(**({"server": "main"} | options))
    return RedisSource.import_(given, RedisSource.restore_claims(given, site), site)


def receive(sink: Any, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        sink.receive(path.encode(), Node(name=path.encode(), type="file"), iter([content[:5], content[5:]]))


def restore(files: dict[str, bytes], site: Site, **options: Any) -> None:
    with closing(sink_of(site, **options)) as sink:
        receive(sink, files)
        sink.finish()


def dumped(server: Redis, database: int = 0) -> dict[bytes, bytes]:
    (keys,) = server.do(("KEYS", "*"), database=database)
    return {key: server.do(("DUMP", key), database=database)[0] for key in keys}


async def test_every_type_of_value_comes_back_with_its_expiry_and_functions(server: Redis, site: Site) -> None:
    server.do(*EVERY_TYPE)
    server.do(("SET", "large", b"x" * (BATCH_BYTES + 1)), ("SET", "small", 1), database=3)
    files, before = await backed_up(site), [dumped(server), dumped(server, 3)]
    server.do(("FLUSHALL",), ("FUNCTION", "FLUSH"))
    restore(files, site)
    assert [dumped(server), dumped(server, 3)] == before
    (left, called, fresh) = server.do(("PTTL", "passing"), ("FCALL", "f", 0), ("PTTL", "number"))
    assert 9_000_000 < left <= 10_000_000
    assert (called, fresh) == (7, -1)
    assert server.leftovers() == []


async def test_what_a_server_writes_to_its_disk_first_is_the_same(server: Redis, site: Site) -> None:
    server.do(*EVERY_TYPE)
    found = []
    for diskless in ("yes", "no"):
        server.do(("CONFIG", "SET", "repl-diskless-sync", diskless))
        files = await backed_up(site)
        server.do(("FLUSHALL",))
        restore(files, site, overwrite=True)
        found.append(dumped(server))
    assert found[0] == found[1]
    server.do(("CONFIG", "SET", "repl-diskless-sync", "yes"))


async def test_who_waits_for_other_replicas_first_is_waited_for(server: Redis, site: Site) -> None:
    server.do(("SET", "a", 1), ("CONFIG", "SET", "repl-diskless-sync-delay", "2"))
    try:
        assert (await backed_up(site))["/redis/main/dump.rdb"].startswith(b"REDIS")
    finally:
        server.do(("CONFIG", "SET", "repl-diskless-sync-delay", "0"))


@pytest.mark.parametrize("mode", ["no", "yes"])
async def test_a_server_starts_on_a_folder_whether_or_not_it_appends(
    server: Redis, site: Site, tmp_path: Path, mode: str
) -> None:
    server.do(("CONFIG", "SET", "appendonly", mode), *EVERY_TYPE)
    files, before = await backed_up(site), dumped(server)
    server.do(("CONFIG", "SET", "appendonly", "no"))
    with Redis.prepared("--appendonly", mode) as other:
        restore(files, site, to=str(other.folder))
        other.start()
        assert dumped(other) == before
        assert other.do(("FCALL", "f", 0)) == [7]
        with pytest.raises(BadOptions, match="stands in"):
            restore(files, site, to=str(other.folder))


async def test_with_overwrite_only_what_was_backed_up_is_there(server: Redis, site: Site) -> None:
    server.do(("SET", "a", 1), ("SET", "b", 2))
    files = await backed_up(site)
    server.do(("SET", "a", 9), ("SET", "later", 3), ("SET", "snappy-restore:elsewhere:00000000:x", 1))
    with pytest.raises(BadOptions, match="there are keys"):
        restore(files, site)
    restore(files, site, overwrite=True)
    (keys, value) = server.do(("KEYS", "*"), ("GET", "a"))
    assert sorted(keys) == [b"a", b"b", b"snappy-restore:elsewhere:00000000:x"]
    assert value == b"1"


async def test_what_dead_restores_of_the_service_left_goes_and_nothing_else(server: Redis, site: Site) -> None:
    files = await backed_up(site)
    others = [b"snappy-restore:site2:00000000:x", b"snappy-restore:site:word:x"]
    server.do(*(("SET", key, 1) for key in (*others, "snappy-restore:site:0123abcd:x")), database=5)
    with closing(server.session()) as alive:
        alive.ask("CLIENT", "SETNAME", "snappy-restore:site:89abcdef")
        alive.ask("SET", "snappy-restore:site:89abcdef:y", 1)
        restore(files, site)
        assert server.do(("KEYS", "*")) == [[b"snappy-restore:site:89abcdef:y"]]
    assert sorted(server.do(("KEYS", "*"), database=5)[0]) == others


async def test_a_damaged_backup_changes_nothing(server: Redis, site: Site) -> None:
    server.do(*EVERY_TYPE)
    files = await backed_up(site)
    before = dumped(server)
    whole = files["/redis/main/dump.rdb"]
    for damaged in (whole[: len(whole) // 2], whole[:-9] + b"\0" + whole[-8:], b"no backup"):
        with pytest.raises(Damaged, match="cannot read the backup"):
            restore(files | {"/redis/main/dump.rdb": damaged}, site, overwrite=True)
    assert dumped(server) == before
    assert server.leftovers() == []


async def test_a_restore_is_ended_while_the_backup_is_read(server: Redis, site: Site, tmp_path: Path) -> None:
    server.do(("DEBUG", "POPULATE", "1000"))
    files = await backed_up(site)
    server.do(("FLUSHALL",))
    slow = tmp_path / "slow"
    slow.write_text('#!/bin/sh\nexec redis-server "$@" --key-load-delay 1000000\n')
    slow.chmod(0o700)
    with closing(sink_of(site_of(tmp_path, server, program=str(slow)), server="more")) as sink:
        receive(sink, files)
        ending, began = threading.Timer(1.0, sink.interrupt), time.monotonic()
        ending.start()
        with pytest.raises(SnappyError):
            sink.finish()
        assert 1 <= time.monotonic() - began < 9
    assert dumped(server) == {}
    assert server.leftovers() == []


async def test_putting_keys_in_place_may_take_longer_than_a_silent_server_is_waited_for(
    server: Redis, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.do(("SET", "a", 1))
    files = await backed_up(site)
    busy = "local function now() return redis.call('TIME')[1] + 0 end local last = now() + 3 while now() < last do end"
    monkeypatch.setattr(redis_copy, "PUT_IN_PLACE", busy + redis_copy.PUT_IN_PLACE)
    restore(files, site_of(tmp_path, server, timeout=1.0), server="more", overwrite=True)
    assert server.do(("GET", "a")) == [b"1"]


@pytest.mark.parametrize("right", ["rename", "del"])
async def test_who_may_not_put_keys_in_place_removes_none(
    server: Redis, site: Site, tmp_path: Path, right: str
) -> None:
    server.do(("SET", "a", 1), ("ACL", "SETUSER", "narrow", "reset", "nopass", *RESTORE_USER.split()))
    server.do(("ACL", "SETUSER", "narrow", f"-{right}", "nopass"))
    files = await backed_up(site)
    server.do(("SET", "a", 2), ("SET", "b", 3))
    with pytest.raises(SourceDenied, match=r"can't run|no permissions"):
        restore(files, site_of(tmp_path, server, user="narrow", password=None), server="more", overwrite=True)
    assert server.do(("MGET", "a", "b"), ("DBSIZE",)) == [[b"2", b"3"], 2]


async def test_what_somebody_writes_at_the_last_moment_stays(
    server: Redis, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.do(("SET", "a", 1))
    files = await backed_up(site)
    server.do(("FLUSHALL",))
    put_in_place = redis_sink.put_in_place

    def late(*given: Any, **more: Any) -> None:
        server.do(("SET", "late", 1))
        put_in_place(*given, **more)

    monkeypatch.setattr(redis_sink, "put_in_place", late)
    with pytest.raises(BadOptions, match="BUSYKEY"):
        restore(files, site)
    assert server.do(("KEYS", "*")) == [[b"late"]]


async def test_keys_that_may_not_have_their_names_are_no_success(server: Redis, site: Site, tmp_path: Path) -> None:
    server.do(("SET", "allowed", 1), ("SET", "other", 1))
    server.do(
        ("ACL", "SETUSER", "narrow", "reset", *RESTORE_USER.split(), "resetkeys", "~snappy-restore:*", "~allowed")
    )
    server.do(("ACL", "SETUSER", "narrow", "nopass"))
    files = await backed_up(site)
    server.do(("FLUSHALL",))
    with pytest.raises(SourceDenied):
        restore(files, site_of(tmp_path, server, user="narrow", password=None), server="more")


async def test_a_restore_that_is_over_before_its_last_step_does_nothing(server: Redis, site: Site) -> None:
    server.do(("SET", "a", 1))
    files = await backed_up(site)
    server.do(("FLUSHALL",))
    with closing(sink_of(site)) as sink:
        receive(sink, files)
        sink.interrupt()
        with pytest.raises(AttemptOver):
            sink.finish()
    assert server.do(("DBSIZE",)) == [0]


async def test_half_of_what_was_restored_is_never_put_in_place(server: Redis, site: Site) -> None:
    """Who gives up waits until the server has done with what was asked before."""
    server.do(("SET", "a", 1))
    files = await backed_up(site)
    sink = sink_of(site, overwrite=True)
    receive(sink, files)
    with closing(server.session()) as late:
        late.ask("CLIENT", "SETNAME", sink._name)
        sink._used = [0]
        late.ask("SET", f"{sink._name}:a", 1)
        closing_it = threading.Thread(target=sink.close)
        closing_it.start()
        closing_it.join(1.0)
        assert server.do(("EXISTS", f"{sink._name}:a")) == [1]
    closing_it.join()
    assert server.leftovers() == []


async def test_functions_that_are_there_already_stay_and_others_of_the_name_too(server: Redis, site: Site) -> None:
    server.do(*EVERY_TYPE)
    files = await backed_up(site)
    server.do(("FLUSHALL",))
    restore(files, site)
    another = "#!lua name=lib\nredis.register_function('f', function() return 8 end)"
    server.do(("FLUSHALL",), ("FUNCTION", "LOAD", "REPLACE", another))
    with pytest.raises(BadOptions, match="already exists"):
        restore(files, site)
    assert server.do(("FCALL", "f", 0), ("DBSIZE",)) == [8, 0]
    restore(files, site, overwrite=True)
    assert server.do(("FCALL", "f", 0)) == [7]


async def test_a_backup_that_waits_for_the_server_is_ended(server: Redis, site: Site) -> None:
    server.do(("CONFIG", "SET", "repl-diskless-sync-delay", "30"))
    try:
        source, began = RedisSource(RedisOptions(server="main"), site), time.monotonic()
        threading.Timer(1.0, source.interrupt).start()
        with pytest.raises(SourceUnavailable):
            async with source.snap():
                pass
        assert time.monotonic() - began < 9
        with pytest.raises(AttemptOver):  # it was over before it began
            async with source.snap():
                pass
    finally:
        server.do(("CONFIG", "SET", "repl-diskless-sync-delay", "0"))


@pytest.mark.needs_root
async def test_a_dump_belongs_to_whom_its_folder_does(site: Site, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    os.chown(tmp_path / "to", 65534, 65533)
    restore(await backed_up(site), site, to=str(tmp_path / "to"))
    found = (tmp_path / "to" / "dump.rdb").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (65534, 65533, 0o600)


async def test_one_restore_at_a_time_makes_a_folder(site: Site, tmp_path: Path) -> None:
    files = await backed_up(site)
    with closing(sink_of(site, to=str(tmp_path / "to"))) as first:
        receive(first, files)
        with pytest.raises(BadOptions, match="another restore"):
            sink_of(site, to=str(tmp_path / "to"))
        first.finish()
    assert (tmp_path / "to" / "dump.rdb").read_bytes() == files["/redis/main/dump.rdb"]


async def test_a_server_that_dies_amid_a_backup_ends_it(tmp_path: Path) -> None:
    with Redis.running() as server:
        server.do(*(("SET", number, bytes([number]) * (1 << 20)) for number in range(64)))
        source = RedisSource(RedisOptions(server="main"), site_of(tmp_path, server))
        async with source.snap() as frozen:
            *_, entry = source.export(frozen)
            assert entry.open
            with entry.open() as file:
                assert file.read(9)[:5] == b"REDIS"
                server.stop()
                with pytest.raises(SourceUnavailable):
                    file.read()


async def test_users_need_no_more_than_the_manual_says(server: Redis, site: Site, tmp_path: Path) -> None:
    server.do(*EVERY_TYPE)
    files = {}
    for user, rights in (("backup", BACKUP_USER), ("restore", RESTORE_USER)):
        server.do(("ACL", "SETUSER", user, "reset", *rights.split()))
    (tmp_path / "pw").write_text("pw")
    (tmp_path / "pw").chmod(0o600)
    given = {"password": {"file": str(tmp_path / "pw")}}
    files = await backed_up(site_of(tmp_path, server, user="backup", **given), "more")
    server.do(("FLUSHALL",), ("FUNCTION", "FLUSH"))
    with pytest.raises(SourceDenied):
        restore(files, site_of(tmp_path, server, user="backup", **given), server="more")
    restore(files, site_of(tmp_path, server, user="restore", **given), server="more")
    assert len(dumped(server)) == len(EVERY_TYPE) - 3


async def test_a_server_is_reached_by_its_socket_and_by_tls(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    files = {"cert": f"{tmp_path}/cert", "key": f"{tmp_path}/key"}
    with held_ports(1) as (tls,):
        words = ["--unixsocket", "s", "--tls-port", str(tls), "--tls-cert-file", files["cert"]]
        words += ["--tls-key-file", files["key"], "--tls-ca-cert-file", files["cert"]]
        with Redis.running(*words) as server:
            secured = {"tls": True, "port": tls, "ca": files["cert"], "host": "localhost"}
            for way in ({"socket": str(server.folder / "s")}, secured | files):
                found = await backed_up(site_of(tmp_path, server, **way), "more")
                assert found["/redis/more/dump.rdb"].startswith(b"REDIS")
            with pytest.raises(SourceDenied, match="certificate"):
                await backed_up(site_of(tmp_path, server, tls=True, port=tls), "more")
            with pytest.raises(SourceError):
                await backed_up(site_of(tmp_path, server, **secured), "more")  # without a certificate of its own


async def test_a_cluster_is_restored_to_folders_alone(server: Redis, site: Site, tmp_path: Path) -> None:
    files = await backed_up(site)
    with Redis.running("--cluster-enabled", "yes") as member:
        assert "/redis/main/dump.rdb" in await backed_up(site_of(tmp_path, member))
        with pytest.raises(BadOptions, match="cluster"):
            restore(files, site_of(tmp_path, member))


async def test_what_is_no_backup_of_redis_is_refused(site: Site) -> None:
    with pytest.raises(BadOptions, match="nothing that the plug-in"):
        restore({"/etc/passwd": b""}, site)
    with pytest.raises(SourceError, match=r"no dump\.rdb"):
        restore({}, site)
    with pytest.raises(BadOptions, match="into one"):
        restore({}, site, databases={"0": 1, "2": 1})
