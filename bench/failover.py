"""Kill -9 of a source service amid a backup, with another replica of it standing by: what that costs.

    python -m bench.failover                 # 2 GiB, killed at half of it, holds of five seconds
    python -m bench.failover --size 256MiB --hold 3 --rounds 3
    python -m bench.failover --files 1             # all of it in one file

A whole site runs in processes of its own: nats-server under ``deploy/nats.conf``, core, audit, target and two
replicas of one source service. The data neither compress nor repeat, so that what one backup stores is their size.
Counted where the packs lie, past every service:

* *seconds*: from the kill to the first pack that the second attempt stored;
* *sent*: bytes of the packs that the second attempt stored, beside what was missing when the first one died;
* *read*: bytes of the source that the second attempt read, as its result says.

The line ``waited for`` says where the seconds went: until the core knew that the attempt was lost, until another
replica had the job, until the first new pack.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.faults import MIB, Arena, arena, make_noise

PACK = re.compile(r"[0-9a-f]{64}\Z")
LOOK_SECONDS = 0.01
STORED_SECONDS = 300.0
UNITS = {"MiB": MIB, "GiB": 1 << 30}
GAP_SECONDS = 0.5
"""A put that the dead replica had almost sent may still become a pack."""


class Failover(NamedTuple):
    """One round. Times are seconds after the kill, sizes bytes of packs."""

    lost: float
    claimed: float
    resumed: float
    finished: float
    stored_before: int
    stored_after: int
    read: int
    size: int

    @property
    def missing(self) -> int:
        return self.size - self.stored_before

    @property
    def surplus(self) -> float:
        """By how much the second attempt sent more than was missing, as a part of that."""
        return (self.stored_after - self.stored_before) / self.missing - 1

    def __str__(self) -> str:
        sent = self.stored_after - self.stored_before
        return (
            f"resumed after {self.resumed:.1f} s, finished after {self.finished:.1f} s; "
            f"sent {sent / MIB:.0f} MiB and read {self.read / MIB:.0f} where {self.missing / MIB:.0f} were missing "
            f"({self.surplus:+.1%} sent)\n"
            f"waited for: the loss {self.lost:.1f} s, the claim {self.claimed - self.lost:.1f} s, "
            f"the first pack {self.resumed - self.claimed:.1f} s"
        )


def stored_in(folder: Path) -> int:
    """Bytes of the packs that lie whole in a repository's folder."""
    return sum(path.stat().st_size for path in (folder / "data").glob("*/*") if PACK.match(path.name))


async def grown(site: Arena, size: int) -> None:
    """Wait until so much is stored in packs."""
    deadline = time.monotonic() + STORED_SECONDS
    while stored_in(site.folder / "repository") < size:
        assert time.monotonic() < deadline, f"only {stored_in(site.folder / 'repository')} bytes\n{site.log('core')}"
        await asyncio.sleep(LOOK_SECONDS)


async def fail_over(site: Arena, tree: Path, size: int) -> Failover:
    """Back ``tree`` up, and kill the replica that does it when half is stored. Raises AssertionError where the job
    does not end well in its second attempt."""
    repository = site.folder / "repository"
    before = stored_in(repository)
    request = await site.backup(tree)
    await grown(site, before + size // 2)
    record = await site.record(request)
    victim = "site1" if record["attempts"][0]["replica"] == "a" else "site1.b"
    site.kill(victim)
    died, clock = time.monotonic(), time.time()
    await asyncio.sleep(GAP_SECONDS)
    stored = stored_in(repository)
    await grown(site, stored + 1)
    resumed = time.monotonic() - died
    done = await site.succeeded(request, 600)
    finished = time.monotonic() - died
    lost, second = done["attempts"]
    assert lost["error"]["code"] == "attempt-lost", done
    return Failover(
        lost["ended"] - clock,
        second["started"] - clock,
        resumed,
        finished,
        stored - before,
        stored_in(repository) - before,
        done["result"]["bytes_read"],
        size,
    )


def measure(size: int, hold_seconds: float, files: int) -> Failover:
    folder = Path(tempfile.mkdtemp(prefix="snappy-failover-"))
    try:
        with standing_by(folder, hold_seconds) as site:
            return asyncio.run(fail_over(site, make_noise(site.data / "tree", size, size // files), size))
    finally:
        shutil.rmtree(folder)


def standing_by(folder: Path, hold_seconds: float) -> Any:
    """A site with two replicas of its source service."""
    processes = ("core", "audit", "vault", "site1", "site1.b")
    return arena(folder, core={"hold_seconds": hold_seconds}, processes=processes)


def _size(text: str) -> int:
    return int(float(text[:-3]) * UNITS[text[-3:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=_size, default=_size("2GiB"), help="of the data, in MiB or GiB")
    parser.add_argument("--hold", type=float, default=5.0, help="seconds that a hold lasts")
    parser.add_argument("--files", type=int, default=256, help="how many files the data are")
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    for _ in range(given.rounds):
        print(measure(given.size, given.hold, given.files), flush=True)


if __name__ == "__main__":
    main()
