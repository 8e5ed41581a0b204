"""The bus beside a bare NATS loop: :mod:`bench.put`'s rounds, as the rest of the bench tells and keeps its results."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import put
from bench.figures import figure, paired_ratio
from snappy.bus.tuning import tune_process

GIB = 2.0
WINDOW = 4


def run(pairs: int, scale: float, results: Path) -> None:
    """As many rounds; prints what they say and leaves it as ``bus.json``."""
    total = max(put.OBJECT, int(GIB * scale * 2**30) // put.OBJECT * put.OBJECT)
    tune_process()
    with tempfile.TemporaryDirectory(prefix="snappy-bus-") as name, put.nats_server(Path(name)) as url:
        objects = put.made_objects()
        rounds = [put.run_round(url, Path(name), total, WINDOW, objects) for _ in range(pairs)]
    print(f"\nbus: {total / 2**20:.0f} MiB a run, {pairs} rounds\n\n{table(rounds)}", flush=True)
    (results / "bus.json").write_text(json.dumps(to_json(rounds, total), indent=1))


def best(found: Mapping[str, float], kind: str) -> float:
    """MB/s of the bare loop with the window that suits it best."""
    return max(rate for name, rate in found.items() if name.startswith(f"{kind} "))


def table(rounds: Sequence[Mapping[str, float]]) -> str:
    """A put's rate, and what part that is of the best bare loop of its round."""
    lines = ["| what | MB/s | ÷ bare nats-py loop | ÷ bare loop on Snappy's transport |", "|---|---|---|---|"]
    rates = {put.LOOP: [best(each, put.LOOP) for each in rounds], put.OURS: [best(each, put.OURS) for each in rounds]}
    for kind in ("memory", "folder"):
        found = [each[kind] for each in rounds]
        ratios = [paired_ratio(found, rates[loop]) for loop in (put.LOOP, put.OURS)]
        cells = [f"put into {kind}", _spread(found), *(f"{ratio.median:.2f}" for ratio in ratios)]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append(f"| bare nats-py loop | {_spread(rates[put.LOOP])} | 1 | |")
    lines.append(f"| bare loop on Snappy's transport | {_spread(rates[put.OURS])} | | 1 |")
    return "\n".join(lines)


def to_json(rounds: Sequence[Mapping[str, float]], total: int) -> dict[str, Any]:
    return {"bytes": total, "rounds": [dict(each) for each in rounds]}


def _spread(rates: Sequence[float]) -> str:
    found = figure(rates)
    return f"{found.median:.0f} ({found.least:.0f}..{found.most:.0f})"
