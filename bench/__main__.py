"""Snappy beside its peers: ``make bench``, or ``python -m bench NAME ...``.

    python -m bench                              # all of it; hours
    python -m bench tree noise --scale 0.05      # two corpora, a twentieth of their size
    python -m bench tree --target s3 --work first restore --duplicates 0
    python -m bench bus                          # puts over the bus beside a bare request and reply loop
    python -m bench growth                       # time and memory by number of files and by size

A name is a corpus (tree, tiny, noise, image, million), ``growth`` or ``bus``. What is measured is in
``bench/matrix.py``, how in ``bench/meter.py`` and ``bench/pairing.py``. Each run leaves a JSON, a table and a chart.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from bench import bus, chart, report
from bench.corpora import RECIPES, corpus
from bench.growth import tell_growth
from bench.matrix import CORPORA, DUPLICATES, GROWTH, LOCAL, TARGETS, WORKS, Case, cases
from bench.pairing import Outcome, Pairing, bytes_below, complain, stays
from bench.sides import Side, peers
from bench.snappy_side import WAYS, SnappySide

ROOM = 2.5
"""How many times its corpus a side leaves in a pair: a repository and a restored tree."""
REST_SECONDS = 180.0
PEERS = ("restic", "borg")
SUITES = (*RECIPES, "growth", "bus")


def main() -> int:
    given = _arguments()
    started = datetime.now(UTC)
    results = (given.results or given.folder / "results") / f"{started:%Y%m%d-%H%M%S}"
    results.mkdir(parents=True)
    names = given.names or [*CORPORA, "bus"]
    found, missing = peers(given.peers, {"restic": given.restic, "borg": given.borg})
    sides = [*_ours(given), *found]
    head = report.heading(sides, missing, given.pairs, started)
    complain(head)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if chosen := [case for name in names for case in _cases(name, given)]:
        outcomes = list[Outcome]()
        try:
            _measure(chosen, sides, given, outcomes)
        finally:
            _leave(outcomes, sides, missing, head, results)
        if "growth" in names:
            tell_growth(outcomes, results)
    if "bus" in names:
        bus.run(given.pairs, given.scale, results)
    complain(f"results are in {results}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench", description="Snappy beside its peers")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SUITES))
    parser.add_argument("--scale", type=float, default=1.0, help="of the corpora: 0.05 is a quick try")
    parser.add_argument("--pairs", type=int, default=5, help="how often each side runs")
    parser.add_argument("--target", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--work", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--duplicates", nargs="+", type=int, choices=range(101), metavar="PERCENT", default=DUPLICATES)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
    parser.add_argument("--way", nargs="+", choices=WAYS, default=WAYS, help="how objects reach our target")
    parser.add_argument("--restic", default="", metavar="PROGRAM", help="the newest to be had by default")
    parser.add_argument("--borg", default="", metavar="PROGRAM")
    parser.add_argument("--patience", type=float, default=0.0, help="seconds to wait for a quiet machine before a run")
    parser.add_argument("--setting", action="append", default=[], metavar="SNAPPY_...=VALUE", help="of the source")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "snappy-bench"), help="for corpora")
    parser.add_argument("--results", type=Path, help="where JSON, table and chart go (default: in the folder)")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in SUITES]:
        parser.error(f"{unknown[0]!r} is none of {', '.join(SUITES)}")
    return given


def _ours(given: argparse.Namespace) -> Iterator[SnappySide]:
    """The first way that is asked for is the one that is compared with peers and aims."""
    for way in dict.fromkeys(given.way):
        name = report.OURS if way == given.way[0] else f"{report.OURS}, {way}"
        yield SnappySide(_settings(given.setting), name, way)


def _settings(given: Sequence[str]) -> Mapping[str, str]:
    return dict(each.split("=", 1) for each in given)


def _cases(name: str, given: argparse.Namespace) -> Iterator[Case]:
    if name == "bus":
        return
    if name == "growth":
        chosen = GROWTH
    elif name == "million":
        chosen = (Case("million", LOCAL, works=("first", "unchanged")),)
    else:
        chosen = tuple(cases(name, given.target, given.duplicates, given.work))
    for case in chosen:
        if case.works:
            yield replace(case, scale=case.scale * given.scale)


def _measure(chosen: Sequence[Case], sides: Sequence[Side], given: argparse.Namespace, outcomes: list[Outcome]) -> None:
    """All cases, each into ``outcomes`` from its first run on. What they leave on the disk is deleted once the last
    one is done, or when the disk would fill up."""
    with _workplace(given.folder) as work:
        for number, case in enumerate(chosen):
            data = corpus(case.corpus, given.folder / "corpora", case.scale)
            complain(f"{case.name}: {'is there' if data.is_built() else 'is being made'}")
            data.build()
            together = given.pairs if stays(data.data) else 1
            _make_room(work, ROOM * bytes_below(data.data) * len(sides) * together)
            pairing = Pairing(case, data, sides, work / str(number), complain, given.patience)
            outcomes.append(pairing.outcome)
            pairing.run(given.pairs)


def _make_room(work: Path, needed: float) -> None:
    """Delete what earlier cases left where the disk is too small for all. A file system makes files slowly for minutes
    after that, so wait for it."""
    left = list(work.iterdir())
    if not left or shutil.disk_usage(work).free > needed:
        return
    complain(f"the disk is too small: deleting what {len(left)} cases left, and resting for {REST_SECONDS:.0f} s")
    for folder in left:
        shutil.rmtree(folder)
    os.sync()
    time.sleep(REST_SECONDS)


@contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="work-", dir=folder))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _leave(
    outcomes: Sequence[Outcome], sides: Sequence[Side], missing: Mapping[str, str], head: str, results: Path
) -> None:
    """Print the table, and write it beside JSON and chart."""
    text = f"{report.table(outcomes, [side.name for side in sides])}\n\n{report.parts_table(outcomes)}"
    print(text, flush=True)
    (results / "table.md").write_text(f"{head}\n\n{text}\n")
    (results / "bench.json").write_text(json.dumps(report.to_json(outcomes, sides, missing), indent=1))
    rows = [row for outcome in outcomes for row in report.rows(outcome)]
    (results / "bench.svg").write_text(chart.bars(rows, head.splitlines()[0]))


if __name__ == "__main__":
    sys.exit(main())
