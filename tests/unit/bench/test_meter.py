from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.meter import COMMAND, Command, Failed, Run, Sampler, cpu_seconds, measure, pss, wait_quiet, with_descendants

MIB = 1 << 20
SPIN = "import time; end = time.process_time() + {seconds}\nwhile time.process_time() < end: pass\n"
SERVICE = "import subprocess, sys\nfor line in sys.stdin: exec(line); print(flush=True)\n"
"""Does what it is told, line by line."""


@pytest.fixture
def service() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", SERVICE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def tell(service: subprocess.Popen[str], line: str) -> None:
    assert service.stdin
    assert service.stdout
    service.stdin.write(f"{line}\n")
    service.stdin.flush()
    service.stdout.readline()


def command(code: str, folder: Path, **more: object) -> Command:
    return Command([sys.executable, "-c", code], dict(os.environ), folder / "log", **more)  # type: ignore[arg-type]


def measured(code: str, folder: Path, **services: int) -> Run:
    return measure(command(code, folder), services)[0]


def test_the_cpu_time_of_a_command_and_its_children(tmp_path: Path) -> None:
    spin = SPIN.format(seconds=0.3)
    run = measured(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spin!r}])\n{spin}", tmp_path)
    assert 0.6 <= run.cpu < 1.5
    assert run.wall >= 0.6
    assert run.parts[COMMAND]["cpu"] == pytest.approx(run.cpu, abs=0.001)


def test_a_service_counts_with_children_that_came_and_went(tmp_path: Path, service: subprocess.Popen[str]) -> None:
    before = cpu_seconds(service.pid)
    tell(service, f"subprocess.run([sys.executable, '-c', {SPIN.format(seconds=0.3)!r}])")
    assert 0.3 <= cpu_seconds(service.pid) - before < 1.0


def test_a_service_counts_with_children_that_still_run(service: subprocess.Popen[str]) -> None:
    tell(service, f"subprocess.Popen([sys.executable, '-c', {SPIN.format(seconds=60)!r}])")
    own, child = with_descendants(service.pid)
    assert own == service.pid
    try:
        while cpu_seconds(child) < 0.2:
            os.sched_yield()
        assert cpu_seconds(service.pid) >= cpu_seconds(child) >= 0.2
    finally:
        os.kill(child, 9)


def test_what_a_service_did_before_is_not_counted(tmp_path: Path, service: subprocess.Popen[str]) -> None:
    tell(service, f"exec({SPIN.format(seconds=0.5)!r})")
    run = measured("pass", tmp_path, worker=service.pid)
    assert run.parts["worker"]["cpu"] < 0.1


def test_the_peak_is_that_of_the_sum(tmp_path: Path, service: subprocess.Popen[str]) -> None:
    tell(service, f"held = b'x' * {64 * MIB}")
    run = measured(f"held = b'x' * {48 * MIB}\nimport time; time.sleep(0.6)", tmp_path, worker=service.pid)
    assert run.peak >= 112 * MIB
    assert run.parts["worker"]["pss"] >= 64 * MIB
    assert run.parts[COMMAND]["pss"] >= 48 * MIB
    assert run.peak == run.parts["worker"]["pss"] + run.parts[COMMAND]["pss"]


def test_memory_that_two_share_counts_once(service: subprocess.Popen[str]) -> None:
    tell(service, f"import os, time; held = b'x' * {64 * MIB}; child = os.fork() or time.sleep(60)")
    with Sampler({"both": service.pid}) as sampler:
        while sampler.samples < 2:
            os.sched_yield()
    own, child = with_descendants(service.pid)
    os.kill(child, 9)
    assert own == service.pid
    assert 64 * MIB < sampler.peak < 100 * MIB


def test_what_others_compute_meanwhile_is_seen(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as neighbour:
        try:
            assert not wait_quiet(0.2, 0.1)
            run = measured("import time; time.sleep(2)", tmp_path)
        finally:
            neighbour.kill()
    assert run.others > 0.5
    assert run.cpu < 0.5


def test_who_has_no_patience_does_not_wait() -> None:
    assert wait_quiet(0.0, 0.0)


def test_a_command_that_fails_tells_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="ended with 3:\noh dear"):
        measured("import sys; sys.stderr.write('oh dear'); sys.exit(3)", tmp_path)


def test_another_code_may_be_good(tmp_path: Path) -> None:
    _, said = measure(command("print('done'); raise SystemExit(3)", tmp_path, codes=frozenset({0, 3})), {})
    assert said == "done\n"


def test_a_process_that_is_gone_holds_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    assert (pss(process.pid), cpu_seconds(process.pid)) == (0, 0.0)
