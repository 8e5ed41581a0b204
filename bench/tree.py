"""A real tree through separate processes: backup, unchanged backup, restore, compare, with the memory of each process.

::

    python -m bench.tree [PATH] [--keep FOLDER] [--compression LEVEL]

Each role runs in a process of its own (``snappy up --split``) on the embedded server. Peak memory is the kernel's
``VmHWM`` of each process. Where ``strace`` is installed, it lists every file that the source's process opens during
the unchanged backup. The comparison is ``tests/support/compare.py``, which imports nothing of Snappy; at the end each
restic that is here reads every byte of the repository.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import tools
from tests.support.restic import COMPLAINTS, Restic

HERE = Path(__file__).resolve().parent.parent
SNAPPY = [str(Path(sys.executable).parent / "snappy")]
PASSWORD = "correct horse battery staple"
CONFIG = """
state_dir = "{folder}/state"
[core]
[audit]
[source.site1]
keys.default.file = "{folder}/password"
[source.site1.allow.local]
kinds = ["*"]
plugins = ["*"]
targets = ["vault"]
read = ["/"]
restore_to = ["{folder}"]
[target.vault]
url = "file://{folder}/repository"
"""


def main() -> int:
    given = _arguments()
    folder = Path(given.keep or tempfile.mkdtemp(prefix="snappy-tree-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return _trial(given.path, folder, given.compression)
    finally:
        if not given.keep:
            shutil.rmtree(folder, ignore_errors=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", default="/usr")
    parser.add_argument("--keep", help="work in this folder and leave it there")
    parser.add_argument("--compression", default="default")
    return parser.parse_args()


def _trial(path: str, folder: Path, compression: str) -> int:
    (folder / "password").write_text(PASSWORD)
    (folder / "password").chmod(0o600)
    config = folder / "snappy.toml"
    config.write_text(CONFIG.format(folder=folder))
    with _stack(config, folder) as top:
        backup = ["backup", path, "--to", "vault", "--compression", compression]
        first = _job(config, "first backup", [*backup, "--init"])
        with _traced(_children(top)["source site1"], folder / "opens.log"):
            again = _job(config, "unchanged backup", backup)
        _say_opened(folder / "opens.log", path)
        restore = ["restore", again["snapshot"], "--from", "vault", "--to", str(folder / "restored")]
        _job(config, "restore", restore)
        _say_memory(top)
    share = again["bytes_stored"] / max(1, first["bytes_stored"])
    print(f"the unchanged backup stored {share:.3%} of what the first stored")
    return _compare(path, f"{folder}/restored{os.path.realpath(path)}") or _check(folder)


@contextmanager
def _stack(config: Path, folder: Path) -> Iterator[int]:
    with open(folder / "up.log", "w") as log:
        process = subprocess.Popen([*SNAPPY, "--config", str(config), "up", "--split"], cwd=HERE, stderr=log)
    try:
        _wait_ready(config, process)
        yield process.pid
    finally:
        process.terminate()
        process.wait(60)


def _wait_ready(config: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if {"site1", "vault"} <= _alive(config):
            return
        time.sleep(0.5)
    raise SystemExit("the stack did not start; see up.log")


def _alive(config: Path) -> set[str]:
    """The services that answer; a command that came before the server would start one of its own."""
    if not (config.parent / "state" / "nats" / "broker.json").exists():
        return set()
    try:
        return {each["service"] for each in _call(config, ["services"])}
    except RuntimeError:
        return set()


def _call(config: Path, command: list[str]) -> Any:
    done = subprocess.run([*SNAPPY, "--config", str(config), "--json", *command], cwd=HERE, capture_output=True)
    if done.returncode not in (0, 3):
        raise RuntimeError(done.stderr.decode() + done.stdout.decode())
    return json.loads(done.stdout)


def _job(config: Path, name: str, command: list[str]) -> dict[str, Any]:
    began = time.monotonic()
    record = _call(config, command)
    result = record.get("result") or record
    seconds = time.monotonic() - began
    print(
        f"{name}: {seconds:.1f} s; {result['files']} files, {result['directories']} directories, "
        f"{result['bytes_processed'] / 1e9:.2f} GB; read {result['bytes_read'] / 1e9:.2f} GB, "
        f"stored {result['bytes_stored'] / 1e6:.1f} MB, {result['warning_count']} warnings",
        flush=True,
    )
    for warning in result["warnings"][:5]:
        print(f"  {warning['path']}: {warning['message']}")
    return result


@contextmanager
def _traced(pid: int, output: Path) -> Iterator[None]:
    """Write what process ``pid`` opens meanwhile to ``output``."""
    if not shutil.which("strace"):
        yield
        return
    watch = ["strace", "-f", "-y", "-e", "trace=open,openat", "-o", str(output), "-p", str(pid)]
    with subprocess.Popen(watch, stderr=subprocess.PIPE) as strace:
        assert strace.stderr is not None
        strace.stderr.readline()
        try:
            yield
        finally:
            strace.terminate()


def _say_opened(trace: Path, path: str) -> None:
    if not trace.exists():
        print("strace is not installed: which files were opened is not known")
        return
    lines = trace.read_text(errors="replace").splitlines()
    opened = (match[1] for line in lines if (match := re.search(r"= \d+<(.*)>$", line)))
    files = [name for name in opened if name.startswith(f"{path}/") and not os.path.isdir(name)]
    print(f"the unchanged backup opened {len(files)} files under {path}, in {len(lines)} opens of any kind")
    for line in files[:5]:
        print(f"  {line}")


def _children(top: int) -> dict[str, int]:
    """The processes of the stack by what they are."""
    found = {"up": top}
    todo = [top]
    while todo:
        parent = todo.pop()
        for task in Path(f"/proc/{parent}/task").iterdir():
            for child in (task / "children").read_text().split():
                found[_name(int(child))] = int(child)
                todo.append(int(child))
    return found


def _name(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    if "nats-server" in words[0]:
        return "nats-server"
    role = "\0".join(words).partition("snappy.cli.child\0")[2].replace("\0", " ").strip()
    return role or f"{Path(words[0]).name} {pid}"


def _say_memory(top: int) -> None:
    for name, pid in sorted(_children(top).items()):
        status = Path(f"/proc/{pid}/status").read_text()
        peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1])
        print(f"peak memory of {name}: {peak / 1024:.0f} MiB")


def _compare(one: str, other: str) -> int:
    return subprocess.run([sys.executable, str(HERE / "tests/support/compare.py"), one, other]).returncode


def _check(folder: Path) -> int:
    """Ask each restic that is here whether the repository is sound."""
    failed = 0
    for program in filter(None, dict.fromkeys([tools.restic(), tools.newest_restic()])):
        restic = Restic(program, folder / "repository", PASSWORD, folder / "restic cache")
        version = restic.run("version").decode().split(" compiled")[0]
        done = restic.attempt("check", "--read-data")
        said = (done.stdout + done.stderr).decode(errors="backslashreplace").lower()
        bad = done.returncode or any(complaint in said for complaint in COMPLAINTS)
        print(f"{version} check --read-data: {said if bad else 'no errors were found'}")
        failed |= bool(bad)
    return failed


if __name__ == "__main__":
    sys.exit(main())
