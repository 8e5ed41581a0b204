"""What the index of a repository costs: bytes a blob, time to load, time of a question.

::

    python -m bench.index                       # a million blobs
    python -m bench.index --blobs 10000000 --keep FOLDER

Makes a repository of nothing but index files (50,000 blobs each, 16 to a pack), then opens it in processes of their
own: without a cache, with an empty one, with a full one, and with one that lacks a single index file. Memory is what
the process has more than before it loaded: at the end (``held``) and at most (``peak``), as the kernel counts it;
pages of the cache's files count where they were touched.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import fsspec

from snappy import heap
from snappy.repository.format import BlobId, BlobLocation, BlobType
from snappy.repository.index import BLOBS_IN_A_FILE, encode_index
from snappy.repository.keys import ScryptCost
from snappy.repository.repo import Repository
from snappy.repository.store import FileType, Store

PASSWORD = "index bench"
IN_A_PACK = 16
LENGTH = 700_000
ASKED = 200_000
TREES_EVERY = 20


def blobs(count: int, seed: int) -> Iterator[BlobLocation]:
    """The same for the same seed."""
    random = Random(seed)
    pack = b""
    for number in range(count):
        place = number % IN_A_PACK
        pack = pack if place else random.randbytes(32)
        kind = BlobType.DATA if number % TREES_EVERY else BlobType.TREE
        yield BlobLocation(kind, random.randbytes(32), pack, place * LENGTH, LENGTH, 1 << 20)


def build(folder: Path, count: int) -> None:
    """A repository whose index files list ``count`` blobs."""
    with Repository.init(store(folder), PASSWORD, cost=ScryptCost(n=2, r=1, p=1)) as repository:
        for start in range(0, count, BLOBS_IN_A_FILE):
            add_index(repository, min(BLOBS_IN_A_FILE, count - start), start)


def add_index(repository: Repository, count: int, seed: int) -> None:
    repository.documents.save(FileType.INDEX, encode_index(blobs(count, seed)))


def store(folder: Path) -> Store:
    return Store(fsspec.filesystem("file"), str(folder / "repository"))


def memory() -> tuple[int, int]:
    """Bytes resident in this process, now and at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    now, most = (int(found[name].split()[0]) << 10 for name in ("VmRSS", "VmHWM"))
    return now, most


def opened(folder: Path, cached: bool) -> Repository:
    return Repository.open(store(folder), PASSWORD, cache=folder / "cache" if cached else None)


def trial(folder: Path, cached: bool, answer: Any) -> None:
    """Load the index once, ask it much, and send what that cost."""
    heap.tune(heap.FOR_PACKS)  # as a source service does
    repository = opened(folder, cached)
    repository.snapshots()  # opens what any job opens
    before, _ = memory()
    began, worked = time.perf_counter(), time.process_time()
    repository.load_index()
    seconds, cpu = time.perf_counter() - began, time.process_time() - worked
    ctypes.CDLL(None).malloc_trim(0)  # what the allocator keeps for later is no cost of the index
    held, peak = memory()
    known = [blob for start in range(0, ASKED, BLOBS_IN_A_FILE) for blob in blobs(BLOBS_IN_A_FILE, start)]
    hit, miss = asked(repository, known), asked(repository, list(blobs(ASKED, -1)))
    answer.send(
        {"seconds": seconds, "cpu": cpu, "held": held - before, "peak": peak - before, "hit": hit, "miss": miss}
    )


def asked(repository: Repository, wanted: list[BlobLocation]) -> float:
    """Nanoseconds of processor time that one question takes."""
    questions: list[tuple[BlobType, BlobId]] = [(blob.kind, blob.id) for blob in wanted]
    Random(7).shuffle(questions)
    has = repository.index.has
    began = time.thread_time_ns()
    for kind, blob in questions:
        has(kind, blob)
    return (time.thread_time_ns() - began) / len(questions)


def apart(work: Callable[..., None], *arguments: Any) -> dict[str, float]:
    """What ``work`` sends from a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=work, args=(*arguments, theirs))
    process.start()
    theirs.close()
    try:
        found: dict[str, float] = ours.recv()
    finally:
        process.join()
    return found


def show(name: str, found: dict[str, float], count: int) -> None:
    print(
        f"{name:24} {found['seconds']:6.2f} s, {found['cpu']:6.2f} s CPU   held {found['held'] / count:6.1f} B/blob   "
        f"peak {found['peak'] / count:6.1f} B/blob ({found['peak'] / 1e6:5.0f} MB)   "
        f"has: hit {found['hit']:5.0f} ns, miss {found['miss']:5.0f} ns",
        flush=True,
    )


def measure(folder: Path, count: int) -> None:
    if not (folder / "repository").exists():
        build(folder, count)
    show("without a cache", apart(trial, folder, False), count)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    show("an empty cache", apart(trial, folder, True), count)
    show("a full cache", apart(trial, folder, True), count)
    with opened(folder, False) as repository:
        add_index(repository, BLOBS_IN_A_FILE, count)
    show("one index file is new", apart(trial, folder, True), count + BLOBS_IN_A_FILE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blobs", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="a folder to work in, which stays")
    given = parser.parse_args()
    folder = given.keep or Path(tempfile.mkdtemp(prefix="snappy-index-"))
    try:
        measure(folder, given.blobs)
    finally:
        if not given.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
