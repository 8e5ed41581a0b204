"""What is etcd's own, with a real server: its file, leases, prefixes, data folders, and what dead restores leave."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from snappy.errors import BadOptions, Damaged, JobError, SnappyError, SourceDenied, SourceError, SourceUnavailable
from snappy.repository.entries import Node
from snappy.sources.plugins import etcd_marks
from snappy.sources.plugins.etcd import EtcdOptions, EtcdSource
from snappy.sources.plugins.etcd_cluster import in_base64, span
from snappy.sources.plugins.etcd_file import SnapshotFile
from snappy.sources.plugins.etcd_marks import Mark
from snappy.sources.plugins.etcd_sink import EtcdRestore
from snappy.sources.site import Site
from tests.support.certificates import make_certificate
from tests.support.etcd import Etcd

pytestmark = pytest.mark.etcd

SNAPSHOT = "/etcd/main/snapshot.db"


@pytest.fixture(scope="module")
def server() -> Iterator[Etcd]:
    with Etcd.running() as running:
        yield running


@pytest.fixture(autouse=True)
def _emptied(server: Etcd) -> None:
    server.empty()


@pytest.fixture
def site(tmp_path: Path, server: Etcd) -> Site:
    return site_of(tmp_path, server)


def site_of(folder: Path, server: Etcd, **more: Any) -> Site:
    settings = server.named(folder)
    settings["more"] = settings["main"] | more
    return Site("site", {"etcd": settings}, work=str(folder / "work"))


async def backed_up(site: Site, name: str = "main") -> dict[str, bytes]:
    source = EtcdSource(EtcdOptions(cluster=name), site)
    found = {}
    async with source.snap() as frozen:
        for entry in source.export(frozen):
            if entry.open:
                with entry.open() as file:
                    found[entry.path.decode()] = file.read()
    return found


def sink_of(site: Site, **options: Any) -> Any:
    given = EtcdRestore(**({"cluster": "main"} | options))
    return EtcdSource.import_(given, EtcdSource.restore_claims(given, site), site)


def receive(sink: Any, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        sink.receive(path.encode(), Node(name=path.encode(), type="file"), iter([content[:5], content[5:]]))


def restore(files: dict[str, bytes], site: Site, **options: Any) -> None:
    with closing(sink_of(site, **options)) as sink:
        receive(sink, files)
        sink.finish()


def fill(server: Etcd, count: int = 5000) -> None:
    """Enough for branches in the file's trees, with keys that were changed, and removed."""
    for begin in range(0, count, 100):
        server.put(
            *((f"many/{number}", bytes([number % 256]) * (number % 300)) for number in range(begin, begin + 100))
        )
    server.put(("many/7", b"changed"), ("large", random.Random(1).randbytes(1_000_000)), ("empty", b""))
    server.member().ask("kv/deleterange", key=in_base64(b"many/8"))


async def test_all_keys_come_back_as_they_were(server: Etcd, site: Site) -> None:
    fill(server)
    before = server.found()
    server.put(("snappy-restore/another/1", b"mark/"))
    files = await backed_up(site)
    assert len(before) == 5000 - 1 + 2
    server.empty()
    restore(files, site)
    assert server.found() == before
    assert server.leftovers() == []


async def test_the_file_is_read_as_etcd_reads_it(server: Etcd, site: Site, tmp_path: Path) -> None:
    fill(server)
    files = await backed_up(site)
    path = tmp_path / "snapshot"
    path.write_bytes(files[SNAPSHOT])
    with SnapshotFile(path) as found:
        assert found.revision == server.status(path)["revision"]
        assert (
            f'"revisions": [\n    {found.revision},\n    {found.revision}\n' in files["/etcd/main/about.json"].decode()
        )


async def test_a_damaged_file_is_never_taken_for_another(server: Etcd, site: Site, tmp_path: Path) -> None:
    fill(server, 1000)
    whole = (await backed_up(site))[SNAPSHOT]
    for damaged in (whole[:-1], whole[: len(whole) // 2], whole[:9999] + b"!" + whole[10000:], b""):
        with pytest.raises(Damaged, match="SHA-256"):
            restore({SNAPSHOT: damaged}, site, overwrite=True)
    chance, path = random.Random(1), tmp_path / "snapshot"
    for _ in range(40):
        data = bytearray(whole)
        for _ in range(20):
            data[chance.randrange(1 << 16)] = chance.randrange(256)
        path.write_bytes(data)
        try:
            with SnapshotFile(path) as found:
                list(found.keys(b""))
        except Damaged:
            continue


async def test_keys_that_expire_get_a_lease_of_the_same_length(server: Etcd, site: Site) -> None:
    member = server.member()
    lease = member.ask("lease/grant", TTL="1234")["ID"]
    server.put(("a", b"1"), ("b", b"2"), lease=lease)
    server.put(("c", b"3"))
    files = await backed_up(site)
    server.empty()
    restore(files, site)
    fresh = {each: server.lease_of(each) for each in ("a", "b", "c")}
    assert fresh["a"] == fresh["b"] != lease
    assert fresh["c"] == "0"
    assert member.ask("lease/timetolive", ID=fresh["a"])["grantedTTL"] == "1234"


async def test_a_prefix_goes_to_another_and_nothing_else_is_touched(server: Etcd, site: Site) -> None:
    server.put(("app/a", b"1"), ("app/b", b"2"), ("apple", b"3"))
    files = await backed_up(site)
    server.put(("app/c", b"4"), ("new/x", b"5"))
    with pytest.raises(BadOptions, match="begin with 'new/'"):
        sink_of(site, prefix="app/", into="new/")
    restore(files, site, prefix="app/", into="other/")
    restore(files, site, prefix="app/", into="new/", overwrite=True)
    restore(files, site, prefix="app/", overwrite=True)
    assert server.found() == {"apple": b"3"} | {
        f"{prefix}/{key}": value for prefix in ("app", "new", "other") for key, value in (("a", b"1"), ("b", b"2"))
    }


async def test_a_server_starts_on_a_data_folder(server: Etcd, site: Site) -> None:
    fill(server, 200)
    files, before = await backed_up(site), server.found()
    with Etcd.prepared() as other:
        left = other.folder / "data.snappy-unfinished"  # by a restore that was killed
        left.mkdir()
        (left / "snapshot.db").write_bytes(b"half of it")
        (left / "data").mkdir()
        restore(files, site, to=str(other.data), peer_urls=other.peer)
        assert sorted(path.name for path in other.folder.iterdir()) == ["data"]
        with pytest.raises(BadOptions, match="not empty"):
            sink_of(site, to=str(other.data))
        other.start()
        assert other.found() == before


async def test_what_dead_restores_of_the_service_left_goes_and_nothing_else(
    server: Etcd, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = server.member().ask("lease/grant", TTL="60")["ID"]
    server.put(("half/before", b"0"))
    server.put(("snappy-restore/site/123", b"half/"), ("half/a", b"1"), ("half/changed", b"1"), ("halfway", b"2"))
    server.put(("snappy-restore/site/123", b"half/"), *((f"half/{number}", b"1") for number in range(120)))
    server.put(("half/changed", b"2"), ("half/later", b"3"))
    server.put(("snappy-restore/site2/123", b"other/"), ("other/a", b"1"))
    server.put((f"snappy-restore/site/{lease}", b"alive/"), ("alive/a", b"1"))
    monkeypatch.setattr(etcd_marks, "PAGE", 50)
    sink_of(site, into="back/").close()
    assert set(server.found()) == {
        "half/before", "half/changed", "half/later", "halfway",
        "snappy-restore/site2/123", "other/a", f"snappy-restore/site/{lease}", "alive/a",
    }  # fmt: skip


async def test_a_restore_that_goes_on_after_all_keeps_its_keys(server: Etcd) -> None:
    mark = ("snappy-restore/site/123", b"half/")
    server.put(mark)
    server.put(mark, ("half/a", b"1"))
    (left,) = etcd_marks._found(server.member(), *span(b"snappy-restore/"))
    server.put(mark, ("half/b", b"2"))
    etcd_marks._undo(server.member(), left)
    assert set(server.found()) == {mark[0], "half/a", "half/b"}


async def test_who_is_taken_for_dead_puts_nothing_while_its_keys_are_removed(
    server: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    member, found, mark = server.member(), etcd_marks._found, made(server, b"half/")
    (left,) = found(member, *span(b"snappy-restore/"))

    def amid(*given: Any, keys_only: bool = False) -> Any:
        if keys_only:
            with pytest.raises(SourceUnavailable, match="took this one for dead"):
                mark.change(member, [etcd_marks._put(b"half/b", b"2")])
        return found(*given, keys_only=keys_only)

    monkeypatch.setattr(etcd_marks, "_found", amid)
    etcd_marks._undo(member, left)
    assert server.found() == {}


async def test_of_two_restores_that_begin_at_once_the_later_gives_way(
    server: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Mark("site", b"x/"), Mark("site2", b"x/y/")
    monkeypatch.setattr(second, "tidy", lambda member: first.make(member, lambda: None))
    with pytest.raises(SourceUnavailable, match="another restore"):
        second.make(server.member(), lambda: None)
    assert list(server.found()) == [first._name.decode()]
    first.change(server.member(), [])


async def test_the_lease_of_a_long_restore_is_renewed(server: Etcd) -> None:
    mark = made(server, b"x/")
    time.sleep(2)  # of the lease's life, which etcd counts in whole seconds
    mark._renewed -= etcd_marks.LEASE_SECONDS
    mark.change(server.member(), [])
    left = server.member().ask("lease/timetolive", ID=mark._lease.decode())["TTL"]
    assert int(left) >= etcd_marks.LEASE_SECONDS - 1


def made(server: Etcd, prefix: bytes) -> Mark:
    mark = Mark("site", prefix)
    mark.make(server.member(), lambda: None)
    return mark


async def test_what_somebody_writes_before_a_restore_begins_stays(server: Etcd, site: Site) -> None:
    server.put(("a", b"1"))
    files = await backed_up(site)
    with closing(sink_of(site, into="late/")) as sink:
        receive(sink, files)
        server.put(("late/x", b"2"))
        with pytest.raises(BadOptions, match="begin with 'late/'"):
            sink.finish()
    assert server.found() == {"a": b"1", "late/x": b"2"}


async def test_two_restores_to_one_place_come_one_after_the_other(
    server: Etcd, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(server, 300)
    files, before = await backed_up(site), server.found()
    first, second = (sink_of(site, overwrite=True, prefix="many/") for _ in range(2))
    for sink in (first, second):
        receive(sink, files)
    begun, others_done, change = threading.Event(), threading.Event(), first._mark.change

    def slow(member: Any, operations: Any) -> None:
        change(member, operations)
        begun.set()
        while not others_done.wait(0.2):
            change(member, [])

    monkeypatch.setattr(first._mark, "change", slow)
    working = threading.Thread(target=first.finish)
    working.start()
    assert begun.wait(10)
    monkeypatch.setattr(etcd_marks, "LEASE_SECONDS", 1)  # so long others wait
    with pytest.raises(SourceUnavailable, match="another restore"):
        second.finish()
    second.close()
    met = {prefix: sink_of(site, overwrite=True, prefix=prefix) for prefix in ("", "many/1", "more/")}
    assert [bool(sink._mark.others(server.member())) for sink in met.values()] == [True, True, False]
    others_done.set()
    working.join()
    for sink in (first, *met.values()):
        sink.close()
    assert server.found() == before


async def test_a_restore_that_was_taken_for_dead_puts_nothing_more(
    server: Etcd, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(server, 1000)
    files = await backed_up(site)
    stalled = sink_of(site, into="back/")
    receive(stalled, files)
    change, times = stalled._mark.change, iter(range(100))

    def lost(*given: Any) -> None:
        change(*given)
        if next(times) == 3:
            server.member().ask("lease/revoke", ID=stalled._mark._lease.decode())
            restore(files, site, prefix="many/1", into="back/many/")

    monkeypatch.setattr(stalled._mark, "change", lost)
    with pytest.raises(SourceUnavailable, match="took this one for dead"):
        stalled.finish()
    stalled.close()
    assert {name[: len("back/many/")] for name in server.found("back/")} == {"back/many/"}
    assert len(server.found("back/")) == len(server.found("many/1"))
    assert server.leftovers() == []


async def test_a_restore_waits_until_one_that_was_killed_is_known_to_be_dead(server: Etcd, site: Site) -> None:
    server.put(("a", b"1"))
    files = await backed_up(site)
    lease = server.member().ask("lease/grant", TTL="3")["ID"]
    server.put((f"snappy-restore/site/{lease}", b"back/"), ("back/half", b"1"))
    restore(files, site, into="back/")
    assert server.found("back/") == {"back/a": b"1"}


async def test_a_restore_that_waits_can_be_ended(server: Etcd, site: Site) -> None:
    server.put(("a", b"1"))
    files = await backed_up(site)
    lease = server.member().ask("lease/grant", TTL="60")["ID"]
    server.put((f"snappy-restore/site/{lease}", b"back/"))
    with closing(sink_of(site, into="back/")) as sink:
        receive(sink, files)
        threading.Timer(1, sink.interrupt).start()
        began = time.monotonic()
        with pytest.raises(SnappyError):
            sink.finish()
        assert time.monotonic() - began < 5
    assert server.found("back/") == {}
    assert server.leftovers() == [f"snappy-restore/site/{lease}"]


async def test_a_restore_that_ends_amid_the_keys_leaves_none(
    server: Etcd, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(server, 1000)
    lease = server.member().ask("lease/grant", TTL="4321")["ID"]
    server.put(("leased", b"1"), lease=lease)
    files = await backed_up(site)
    sink = sink_of(site, into="back/")
    receive(sink, files)
    change, times = sink._mark.change, iter(range(100))

    def interrupted(*given: Any) -> None:
        change(*given)
        if next(times) == 3:
            assert server.found("back/")
            threading.Thread(target=sink.interrupt).run()

    monkeypatch.setattr(sink._mark, "change", interrupted)
    with pytest.raises(JobError):
        sink.finish()
    sink.close()
    assert server.found("back/") == {}
    assert server.leftovers() == []
    leases = server.member().ask("lease/leases")["leases"]
    assert [each["ID"] for each in leases if granted(server, each["ID"]) == "4321"] == [lease]


def granted(server: Etcd, lease: str) -> str:
    return str(server.member().ask("lease/timetolive", ID=lease).get("grantedTTL", ""))


async def test_a_server_that_dies_amid_a_backup_ends_it(tmp_path: Path) -> None:
    with Etcd.running() as server:
        for number in range(16):
            server.put((f"{number}", bytes([number]) * 1_000_000))
        source = EtcdSource(EtcdOptions(cluster="main"), site_of(tmp_path, server))
        async with source.snap() as frozen:
            *_, entry = source.export(frozen)
            assert entry.open
            with entry.open() as file:
                file.read(100)
                server.stop()
                with pytest.raises(SourceUnavailable):
                    file.read()


async def test_a_backup_that_waits_for_the_server_is_ended(server: Etcd, site: Site) -> None:
    source, began = EtcdSource(EtcdOptions(cluster="main"), site), time.monotonic()
    threading.Timer(1.0, source.interrupt).start()
    with server.frozen(), pytest.raises(SourceUnavailable):
        await source.snap().__aenter__()
    assert time.monotonic() - began < 20


async def test_a_backup_that_waits_for_the_rest_is_ended(server: Etcd, site: Site) -> None:
    for number in range(16):
        server.put((f"{number}", bytes([number]) * 1_000_000))
    source, began = EtcdSource(EtcdOptions(cluster="main"), site), time.monotonic()
    async with source.snap() as frozen:
        *_, entry = source.export(frozen)
        assert entry.open
        with entry.open() as file, server.frozen():
            threading.Timer(1.0, source.interrupt).start()
            with pytest.raises(SourceUnavailable):
                file.read()
    assert time.monotonic() - began < 20


async def test_a_cluster_is_reached_by_tls_with_a_certificate(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    files = {"cert": f"{tmp_path}/cert", "key": f"{tmp_path}/key"}
    words = ["--cert-file", files["cert"], "--key-file", files["key"], "--trusted-ca-file", files["cert"]]
    with Etcd.running(*words, "--client-cert-auth", tls=files) as server:
        server.put(("a", b"1"))
        more = {"url": server.url, "ca": files["cert"]}
        assert SNAPSHOT.replace("main", "more") in await backed_up(site_of(tmp_path, server, **more, **files), "more")
        with pytest.raises(SourceDenied, match="certificate"):
            await backed_up(site_of(tmp_path, server, url=server.url), "more")
        with pytest.raises(SourceError):
            await backed_up(site_of(tmp_path, server, **more), "more")  # without a certificate of its own


async def test_a_user_needs_no_more_for_a_restore_than_the_manual_says(tmp_path: Path) -> None:
    with Etcd.running() as server:
        server.put(("app/a", b"1"), ("other", b"2"))
        member = server.member()
        member.ask("auth/role/add", name="app")
        for prefix in (b"app/", b"snappy-restore/"):
            begin, end = map(in_base64, span(prefix))
            permission = {"permType": "READWRITE", "key": begin, "range_end": end}
            member.ask("auth/role/grant", name="app", perm=permission)
        member.ask("auth/user/add", name="app", password=server.password)
        member.ask("auth/user/grant", user="app", role="app")
        server.secure()
        files = await backed_up(site_of(tmp_path, server))
        site = site_of(tmp_path, server, user="app")
        with pytest.raises(SourceDenied):
            await backed_up(site, "more")
        with pytest.raises(SourceDenied):
            restore(files, site, cluster="more", overwrite=True)
        assert set(server.found()) == {"app/a", "other"}
        restore(files, site, cluster="more", prefix="app/", overwrite=True)
        assert server.found() == {"app/a": b"1", "other": b"2"}


def test_rules_name_a_prefix_as_one_part(site: Site) -> None:
    claims = [EtcdSource.restore_claims(EtcdRestore(into=into), site) for into in ("", "app/", "/app/b")]
    assert claims == [["etcd://default"], ["etcd://default/app%2F"], ["etcd://default/%2Fapp%2Fb"]]


async def test_what_is_no_backup_of_etcd_is_refused(site: Site) -> None:
    with pytest.raises(BadOptions, match="nothing that the plug-in"):
        restore({"/etc/passwd": b""}, site)
    with pytest.raises(SourceError, match=r"no snapshot\.db"):
        restore({}, site)
    with pytest.raises(BadOptions, match="own"):
        restore({}, site, into="snappy-restore/site/x")
