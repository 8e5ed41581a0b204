"""What a command costs, with the services that stand behind it: wall time, CPU time, peak of memory. Linux only.

* CPU is user and system time. Of the command it is what the kernel says as it ends, with all its children. Of a
  service it is the difference of ``/proc/PID/stat`` from before to a moment after the command, of it and of all its
  descendants, those included that ended meanwhile.
* *Others* is what the rest of the machine computed meanwhile, in cores: a run beside busy neighbours is a poor one.
* Memory is PSS (``smaps_rollup``): a page that n processes share counts as one n-th for each. All processes are looked
  at together, a few times a second, and the largest *sum* counts.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SAMPLE_SECONDS = 0.15
SETTLE_SECONDS = 0.3
"""What services still do for a command that is over counts as its cost."""
TICKS = os.sysconf("SC_CLK_TCK")
COMMAND = "command"
TOLD = 4000


class Failed(Exception):
    """A command that is measured did not do what it was asked to."""


@dataclass(frozen=True)
class Run:
    """Seconds and bytes. ``parts`` has the CPU seconds and the memory at the peak of each service, and of the command
    as ``command``; ``details`` is what the command itself said."""

    wall: float
    cpu: float
    peak: int
    parts: Mapping[str, Mapping[str, float]]
    details: Mapping[str, Any] = field(default_factory=dict)
    others: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "wall": round(self.wall, 3),
            "cpu": round(self.cpu, 3),
            "peak": self.peak,
            "others": round(self.others, 2),
            "parts": self.parts,
            "details": self.details,
        }


@dataclass(frozen=True)
class Command:
    """What is run. It must end with one of ``codes``; its output is kept in ``log``."""

    words: Sequence[str]
    environ: Mapping[str, str]
    log: Path
    cwd: Path | None = None
    codes: frozenset[int] = frozenset({0})


def measure(command: Command, services: Mapping[str, int]) -> tuple[Run, str]:
    """Run a command; what it cost with these services (process ids by name), and its standard output.

    Raises Failed where it ends otherwise than it may.
    """
    before, busy = {name: cpu_seconds(pid) for name, pid in services.items()}, busy_seconds()
    began = time.perf_counter()
    with command.log.open("wb") as log, _output(command) as output:
        process = subprocess.Popen(
            command.words, env=command.environ, cwd=command.cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=log
        )
        with Sampler({**services, COMMAND: process.pid}) as sampler:
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    said = _output_of(command).read_text(errors="replace")
    if process.returncode not in command.codes:
        told = (command.log.read_text(errors="replace") + said)[-TOLD:]
        raise Failed(f"{' '.join(command.words[:4])} ... ended with {process.returncode}:\n{told}")
    time.sleep(SETTLE_SECONDS)
    cpu = {name: cpu_seconds(pid) - before[name] for name, pid in services.items()}
    cpu[COMMAND] = usage.ru_utime + usage.ru_stime
    others = busy_seconds() - busy - sum(cpu.values()) - sampler.cpu
    return _run(wall, cpu, sampler, max(0.0, others) / (wall + SETTLE_SECONDS)), said


def _run(wall: float, cpu: Mapping[str, float], sampler: Sampler, others: float) -> Run:
    parts = {name: {"cpu": round(cpu[name], 3), "pss": sampler.at_peak.get(name, 0)} for name in cpu}
    return Run(wall, sum(cpu.values()), sampler.peak, parts, others=others)


def _output_of(command: Command) -> Path:
    return command.log.with_suffix(".out")


@contextmanager
def _output(command: Command) -> Iterator[Any]:
    with _output_of(command).open("wb") as output:
        yield output


class Sampler:
    """Looks at the memory of all processes given, and of all their descendants, for as long as its context lasts."""

    def __init__(self, roots: Mapping[str, int]) -> None:
        self.roots = roots
        self.peak = 0
        self.at_peak: dict[str, int] = {}
        self.samples = 0
        self.cpu = 0.0
        """Seconds that the looking itself took."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self._look()
            if self._over.wait(SAMPLE_SECONDS):
                self.cpu = time.thread_time()
                return

    def _look(self) -> None:
        found = {name: sum(map(pss, with_descendants(pid))) for name, pid in self.roots.items()}
        self.samples += 1
        if sum(found.values()) > self.peak:
            self.peak, self.at_peak = sum(found.values()), found


def with_descendants(pid: int) -> list[int]:
    """A process and all that descend from it now."""
    found, unseen = list[int](), [pid]
    while unseen:
        each = unseen.pop()
        found.append(each)
        unseen.extend(_children(each))
    return found


def _children(pid: int) -> Iterator[int]:
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        return
    for task in tasks:
        yield from map(int, _read(f"/proc/{pid}/task/{task}/children").split())


def pss(pid: int) -> int:
    """Bytes of memory that a process holds, its part of what it shares; 0 of one that is over."""
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, of its descendants, and of those that ended and were waited for."""
    return sum(_ticks(each) for each in with_descendants(pid)) / TICKS


def busy_seconds() -> float:
    """What all of the machine's cores have computed so far: ``cpu`` of ``/proc/stat``, but for idle and iowait."""
    user, nice, system, _, _, *interrupts = map(int, _read("/proc/stat").splitlines()[0].split()[1:9])
    return (user + nice + system + sum(interrupts)) / TICKS


def wait_quiet(cores: float, patience: float) -> bool:
    """Wait until all processes together use less than so many cores for a second, ``patience`` seconds at most;
    whether they did."""
    deadline = time.monotonic() + patience
    while patience:
        before, began = busy_seconds(), time.monotonic()
        time.sleep(1)
        if busy_seconds() - before < cores * (time.monotonic() - began):
            return True
        if time.monotonic() > deadline:
            return False
    return True


def _ticks(pid: int) -> int:
    """utime, stime, cutime and cstime of proc(5)."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:15]))


def _read(path: str) -> str:
    """A file of /proc; nothing where its process has gone."""
    try:
        with open(path) as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""
