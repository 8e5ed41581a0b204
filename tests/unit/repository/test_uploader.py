from __future__ import annotations

import threading

import pytest

from snappy.errors import InternalError, NoSpace, Unavailable
from snappy.repository.pack import PackBuilder, PackMemory
from snappy.repository.uploader import IN_FLIGHT, THREADS, PackUploader


def empty() -> PackBuilder:
    return PackBuilder(PackMemory(1).take())


def test_uploads_run_beside_each_other() -> None:
    meet = threading.Barrier(THREADS, timeout=20)

    def upload(builder: PackBuilder) -> None:
        meet.wait()

    uploader = PackUploader(upload)
    for _ in range(THREADS):
        uploader.put(empty())
    uploader.wait()
    uploader.close()
    assert meet.n_waiting == 0


def test_put_blocks_while_too_many_are_on_their_way() -> None:
    go = threading.Event()

    def upload(builder: PackBuilder) -> None:
        go.wait(20)

    uploader = PackUploader(upload)
    for _ in range(IN_FLIGHT):
        uploader.put(empty())
    placed = threading.Event()

    def put_one_more() -> None:
        uploader.put(empty())
        placed.set()

    extra = threading.Thread(target=put_one_more)
    extra.start()
    assert not placed.wait(0.1)
    go.set()
    assert placed.wait(20)
    extra.join()
    uploader.wait()
    uploader.close()


def test_after_a_failure_nothing_is_uploaded() -> None:
    seen: list[PackBuilder] = []

    def upload(builder: PackBuilder) -> None:
        seen.append(builder)
        raise NoSpace

    uploader = PackUploader(upload)
    uploader.put(empty())
    with pytest.raises(NoSpace):
        uploader.wait()
    for _ in range(2 * IN_FLIGHT):
        with pytest.raises(NoSpace):
            uploader.put(empty())
    assert len(seen) == 1
    uploader.close()


def test_a_failure_frees_whoever_waits_for_room() -> None:
    go = threading.Event()

    def upload(builder: PackBuilder) -> None:
        go.wait(20)
        raise Unavailable

    uploader = PackUploader(upload)
    for _ in range(IN_FLIGHT):
        uploader.put(empty())
    threading.Timer(0.05, go.set).start()
    with pytest.raises(Unavailable):
        uploader.put(empty())
    uploader.close()


def test_close_drops_what_waits() -> None:
    go, arrived = threading.Event(), []

    def upload(builder: PackBuilder) -> None:
        go.wait(20)
        arrived.append(builder)

    uploader = PackUploader(upload)
    for _ in range(IN_FLIGHT):
        uploader.put(empty())
    threading.Timer(0.05, go.set).start()
    uploader.close()
    assert len(arrived) == THREADS
    for call in (uploader.wait, lambda: uploader.put(empty())):
        with pytest.raises(InternalError, match="closed"):
            call()


def test_the_first_failure_is_the_one_told() -> None:
    uploader = PackUploader(lambda builder: None)
    uploader.fail(NoSpace())
    uploader.fail(Unavailable())
    with pytest.raises(NoSpace):
        uploader.raise_failure()
    uploader.close()
    uploader.close()
