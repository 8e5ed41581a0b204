"""What Snappy's services do while they work, by py-spy: where each one's time goes, by thread and by function.

    python -m bench.profile tree --scale 0.1                 # every work
    python -m bench.profile noise --work first --top 20 --service source

py-spy samples the Python stacks that are on a CPU or in C code that holds none (hashing, sealing, compressing, reading
and writing all count as the Python function that called them). Shares are of the wall time of the run: a process whose
threads together show 100 % keeps one core busy. ``pip install py-spy``; see what it can attach to in its documentation.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.corpora import Corpus, corpus
from bench.matrix import WORKS
from bench.meter import Run
from bench.pairing import warm
from bench.sides import Session
from bench.snappy_side import SnappySession, SnappySide
from tests.support.places import in_folder

RATE = 200
"""Samples a second."""
FRAME = re.compile(r"^(?P<name>.+) \((?P<file>[^()]*?)(?::\d+)?\)$")
SERVICES = ("source", "target")
PY_SPY = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")


def main() -> int:
    given = _arguments()
    if not PY_SPY:
        raise SystemExit("py-spy is not installed: `pip install py-spy`")
    data = corpus(given.corpus, given.folder / "corpora", given.scale)
    data.build()
    with tempfile.TemporaryDirectory(prefix="profile-", dir=given.folder) as name:
        _profile(Path(name), data, given)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench.profile", description="what Snappy's services do")
    parser.add_argument("corpus")
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument("--work", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--service", nargs="+", default=list(SERVICES))
    parser.add_argument("--top", type=int, default=12, help="how many functions of each")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "snappy-bench"))
    return parser.parse_args()


def _profile(folder: Path, data: Corpus, given: argparse.Namespace) -> None:
    with SnappySide().open(folder, in_folder(folder)) as session:
        assert isinstance(session, SnappySession)
        snapshot = ""
        for work in WORKS:
            if work not in given.work and work != "first":
                continue
            warm(data.data)
            pids = {name: session.site.services[name] for name in given.service}
            with ExitStack() as stack:
                if work == "changed":
                    stack.enter_context(data.changed())
                stacks = stack.enter_context(recording(pids, folder))
                run, made = _work(work, session, data, snapshot, folder / "restored")
            snapshot = snapshot or made
            if work in given.work:
                print(f"\n## {data.name}, {work}: {run.wall:.2f} s, CPU {run.cpu:.2f} s")
                for name in pids:
                    print(told(name, stacks[name], run, given.top), flush=True)


def _work(work: str, session: Session, data: Corpus, snapshot: str, to: Path) -> tuple[Run, str]:
    if work.startswith("restore"):
        return session.restore(snapshot, to), ""
    return (session.check(), "") if work == "check" else session.backup(data.data)


@contextmanager
def recording(pids: Mapping[str, int], folder: Path) -> Iterator[dict[str, Counter[str]]]:
    """Sample these processes for as long as the context lasts; then the value has how often each stack was met."""
    found = dict[str, Counter[str]]()
    outputs = {name: folder / f"{name}.stacks" for name in pids}
    words = [str(PY_SPY), "record", "--threads", "--nonblocking", "-f", "raw", "-r", str(RATE), "-d", "unlimited"]
    running = {
        name: subprocess.Popen([*words, "-p", str(pid), "-o", str(outputs[name])], stdout=subprocess.DEVNULL)
        for name, pid in pids.items()
    }
    try:
        yield found
    finally:
        for process in running.values():
            process.send_signal(signal.SIGINT)
            process.wait(60)
    for name, output in outputs.items():
        found[name] = read_stacks(output.read_text(errors="replace").splitlines())


def read_stacks(lines: Iterable[str]) -> Counter[str]:
    """Of py-spy's raw format: frames with semicolons between them, a space, a count."""
    found = Counter[str]()
    for line in lines:
        frames, _, count = line.rpartition(" ")
        found[frames] += int(count)
    return found


def told(name: str, stacks: Counter[str], run: Run, top: int) -> str:
    """A process's busiest threads and functions, in percent of the run's wall time."""
    whole = run.wall * RATE
    threads, leaves = Counter[str](), Counter[str]()
    for stack, count in stacks.items():
        frames = stack.split(";")
        threads[frames[0]] += count
        leaves[_short(frames)] += count
    lines = [f"{name}: {sum(stacks.values()) / whole:.0%} of a core by samples, CPU {run.parts[name]['cpu']:.2f} s"]
    lines += [f"  {count / whole:6.1%}  {thread}" for thread, count in threads.most_common(6)]
    lines += [f"    {count / whole:6.1%}  {leaf}" for leaf, count in leaves.most_common(top)]
    return "\n".join(lines)


def _short(frames: Sequence[str]) -> str:
    """The innermost frame, and the innermost one of Snappy's own where that is another."""
    inner = frames[-1]
    own = next((frame for frame in reversed(frames) if "snappy/" in frame), "")
    return _plain(inner) if own in ("", inner) else f"{_plain(inner)} < {_plain(own)}"


def _plain(frame: str) -> str:
    match = FRAME.match(frame)
    return f"{match['name']} ({match['file']})" if match else frame


if __name__ == "__main__":
    sys.exit(main())
