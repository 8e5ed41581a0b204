"""Programs that plug-ins run: their output, their input, their end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from snappy.errors import ProgramFailed, ProgramMissing
from snappy.repository.format import MIB
from snappy.sources.programs import Input, Output, Program, Running, lacking, run


def shell(script: str, **more: int | None) -> Program:
    return Program(["/bin/sh", "-c", script], **more)  # type: ignore[arg-type]


def feed(feeding: Input) -> None:
    for _ in range(100):
        feeding.write(bytes(MIB))


def test_what_a_program_writes_can_be_read() -> None:
    with Output(shell("head -c 3000000 /dev/zero; printf end")) as output:
        data = output.readall()
    assert data == bytes(3_000_000) + b"end"


def test_output_that_is_cut_short_is_an_error_that_says_why() -> None:
    with Output(shell("printf half; echo 'no room' >&2; exit 3")) as output:
        assert output.read(4) == b"half"
        with pytest.raises(ProgramFailed, match=r"sh ended with code 3: no room"):
            output.read(1)


def test_a_program_that_was_killed_did_not_end_well() -> None:
    with Output(shell("kill -9 $$")) as output, pytest.raises(ProgramFailed, match="ended by signal 9"):
        output.readall()


def test_to_close_the_output_ends_the_program_and_what_it_started() -> None:
    program = shell("sleep 1000 & echo $!; wait")
    output = Output(program)
    child = int(output.read(100))
    output.close()
    assert program.process.wait(5) != 0
    _await_end(child)


def test_a_program_that_hangs_can_be_ended_from_another_thread() -> None:
    program = shell("exec sleep 1000")
    with Output(program) as output:
        threading.Timer(0.2, program.end).start()
        with pytest.raises(ProgramFailed, match="ended by signal 15"):
            output.read(1)


def test_the_input_ends_only_when_all_was_given(tmp_path: Path) -> None:
    feeding = Input(shell(f"cat > {tmp_path}/got; touch {tmp_path}/whole", stdin=subprocess.PIPE, stdout=None))
    feeding.write(b"x" * 3 * MIB)
    feeding.finish()
    feeding.close()
    assert (tmp_path / "got").stat().st_size == 3 * MIB
    assert (tmp_path / "whole").exists()


def test_a_program_that_was_given_a_part_never_sees_an_end(tmp_path: Path) -> None:
    feeding = Input(shell(f"cat > {tmp_path}/got; touch {tmp_path}/whole", stdin=subprocess.PIPE, stdout=None))
    feeding.write(b"x")
    feeding.close()
    feeding.close()
    time.sleep(0.2)
    assert not (tmp_path / "whole").exists()


FEEDER = """
import subprocess, sys, time
from snappy.sources.programs import Input, Program
feeding = Input(Program(["/bin/sh", "-c", sys.argv[1]], stdin=subprocess.PIPE, stdout=None))
feeding.write(b"x")
print(feeding._program.process.pid, flush=True)
time.sleep(60)
"""


def test_a_program_whose_feeder_is_killed_never_sees_an_end(tmp_path: Path) -> None:
    command = f"cat > {tmp_path}/got; touch {tmp_path}/whole"
    feeder = subprocess.Popen([sys.executable, "-c", FEEDER, command], stdout=subprocess.PIPE)
    assert feeder.stdout
    with feeder, feeder.stdout:
        program = int(feeder.stdout.readline())
        feeder.kill()
    _await_end(program)
    time.sleep(0.1)
    assert (tmp_path / "got").exists()
    assert not (tmp_path / "whole").exists()


def test_a_program_is_fed_all_or_sees_no_end(tmp_path: Path) -> None:
    words = ["/bin/sh", "-c", f"cat > {tmp_path}/got; touch {tmp_path}/whole"]

    def broken() -> Iterator[bytes]:
        yield b"some"
        raise OSError("the rest is lost")

    with pytest.raises(OSError, match="lost"):
        Running().feed(words, broken())
    assert not (tmp_path / "whole").exists()
    Running().feed(words, [b"one", b"two"])
    assert (tmp_path / "got").read_bytes() == b"onetwo"


RUNNING = """
import sys
from snappy.sources.programs import Running
Running().run(["/bin/sh", "-c", sys.argv[1]])
"""


def test_a_program_does_not_outlive_who_runs_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "id")
    script = f"echo $$ > {tmp_path}/id; exec sleep 60"
    with subprocess.Popen([sys.executable, "-c", RUNNING, script]) as runner:
        program = int((tmp_path / "id").read_text())
        time.sleep(0.2)  # the guard comes after the program
        runner.kill()
    _await_end(program)


def test_an_error_is_told_whatever_was_said_after_it_but_no_password() -> None:
    said = """fail: error: no such role: clerk
Command was: CREATE USER MAPPING FOR clerk OPTIONS (user 'x', password 'in''kpot');
ALTER SUBSCRIPTION s CONNECTION 'host=h password=inkpot dbname=d';
5
6
7"""
    with pytest.raises(ProgramFailed) as raised:
        Running().run(["/bin/sh", "-c", 'echo "$0" >&2; exit 3', said])
    assert "no such role: clerk / Command was" in raised.value.message
    assert "dbname=d" in raised.value.message
    assert "kpot" not in raised.value.message
    with pytest.raises(ProgramFailed, match=r"no such role: clerk / b / b / b / b / b$"):
        Running().run(["/bin/sh", "-c", 'echo "$0" >&2; yes b | head -n 9 >&2; exit 3', said])


def test_what_a_program_says_in_one_endless_line_is_not_kept() -> None:
    with pytest.raises(ProgramFailed) as raised:
        Running().run(["/bin/sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x >&2; exit 3"])
    assert len(raised.value.message) < 3000


def test_a_program_that_stops_reading_is_an_error() -> None:
    feeding = Input(shell("echo 'bad data' >&2; exit 4", stdin=subprocess.PIPE, stdout=None))
    with pytest.raises(ProgramFailed, match="code 4: bad data"):
        feed(feeding)
    feeding.close()


def test_a_program_that_ends_well_but_early_is_an_error_too() -> None:
    feeding = Input(shell("exit 0", stdin=subprocess.PIPE, stdout=None))
    with pytest.raises(ProgramFailed, match="did not want all of it"):
        feed(feeding)
    feeding.close()


def test_a_short_program() -> None:
    assert run(["cat"], given=b"given") == b"given"
    with pytest.raises(ProgramFailed, match="sh ended with code 2: one / two"):
        run(["/bin/sh", "-c", "echo one >&2; echo two >&2; exit 2"])
    with pytest.raises(ProgramFailed, match=r"did not end within 0.2 seconds"):
        run(["sleep", "10"], seconds=0.2)


@pytest.mark.parametrize("start", [lambda: run(["no-such-program"]), lambda: Program(["no-such-program"])])
def test_a_program_that_is_not_there(start: object) -> None:
    with pytest.raises(ProgramMissing, match="no-such-program is not installed"):
        start()  # type: ignore[operator]


def test_what_is_lacking_is_told_with_its_remedy() -> None:
    assert lacking({"sh": "impossible", "no-such-program": "apt install it"}) == [
        "no-such-program is not installed: apt install it"
    ]


def test_the_services_secrets_are_not_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAPPY_PASSWORD", "secret")
    script = "import os; print(*os.environ)"
    seen = run([sys.executable, "-c", script], environment={"PGPASSFILE": "x"}).decode().split()
    assert {"PATH", "PGPASSFILE"} <= set(seen)
    assert "SNAPPY_PASSWORD" not in seen


def _await_end(process: int) -> None:
    for _ in range(100):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{process}/stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("what the program started still runs")
