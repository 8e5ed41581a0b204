"""``make demo``: Python's standard library goes over the bus into a repository, twice, and comes back elsewhere.

Every command is the real ``snappy`` with nothing configured, so each starts the embedded stack (a private nats-server,
a core, a source service and a target service) for the length of its job. Ends with 1 if anything is not as it should.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from tests.support import compare, tools


class Unexpected(Exception):
    """Something was not as it should be."""


class Demo:
    """One run in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tree = folder, folder / "stdlib"
        self.repository, self.restored = folder / "repository", folder / "restored"
        self.began = time.monotonic()
        (folder / "password").write_text(secrets.token_urlsafe(16) + "\n")
        (folder / "password").chmod(0o600)
        (folder / "snappy.toml").touch()

    def run(self) -> None:
        self.copy_library()
        password = ["--password-file", "password"]
        backup = ["snappy", "backup", "./stdlib", "--to", "./repository", *password]
        self.first_backup([*backup, "--init"])
        self.second_backup(backup)
        self.say(["snappy", "restore", "latest", "--from", "./repository", "--to", "./restored", *password])
        self.compare()
        self.ask_restic()
        print(f"\nall of it took {time.monotonic() - self.began:.1f} s; nothing is left behind")

    def copy_library(self) -> None:
        """A copy, so that no other Python's caches change it meanwhile, and without what pip installed."""
        library = Path(sysconfig.get_paths()["stdlib"])
        shutil.copytree(library, self.tree, symlinks=True, ignore=shutil.ignore_patterns("*-packages"))
        files = sum(len(names) for _, _, names in os.walk(self.tree))
        print(
            f"the standard library of {library.name}, as ./stdlib: {files} files, {tree_size(self.tree) / 1e6:.1f} MB"
        )

    def first_backup(self, command: list[str]) -> None:
        self.first = self.say(command)
        self.size = tree_size(self.repository)
        print(f"  (the repository has {self.size / 1e6:.1f} MB)")

    def second_backup(self, command: list[str]) -> None:
        again = self.say(command)
        growth = tree_size(self.repository) - self.size
        print(f"  (the repository grew by {growth / 1e3:.1f} kB)")
        if "0 new, 0 changed" not in again or growth > self.size / 100 or again == self.first:
            raise Unexpected("the second backup found something new in a tree that nobody changed")

    def compare(self) -> None:
        found = compare.compare(self.tree, Path(f"{self.restored}{self.tree}"))
        print("\n$ compare.py ./stdlib ./restored/.../stdlib\n  " + "\n  ".join([*found.differences, found.summary()]))
        if not found.same or not found.files:
            raise Unexpected("what was restored is not what was backed up")

    def ask_restic(self) -> None:
        restic = tools.newest_restic() or tools.restic()
        if not restic:
            print("\n(restic, which can read ./repository as well, is not installed: `make services` brings it)")
            return
        self.say([restic, "-r", "./repository", *("--password-file", "password"), "--no-cache", "check", "--read-data"])

    def say(self, command: list[str]) -> str:
        """Run a command as a person would, print it and what it said."""
        shown = [Path(command[0]).name, *command[1:]]
        print(f"\n$ {shlex.join(shown)}")
        place = {"cwd": self.folder, "env": self.environment()}
        done = subprocess.run(command, **place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        print("\n".join(f"  {line}" for line in done.stdout.splitlines() if line.strip()), flush=True)
        if done.returncode:
            raise Unexpected(f"{shown[0]} ended with {done.returncode}")
        return done.stdout

    def environment(self) -> dict[str, str]:
        """Nothing of this machine's Snappy."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SNAPPY_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}"
        return kept | {
            "PATH": path,
            "SNAPPY_CONFIG": str(self.folder / "snappy.toml"),
            "SNAPPY_STATE_DIR": str(self.folder / "state"),
        }


def tree_size(top: Path) -> int:
    """Bytes in all regular files."""
    return sum(path.lstat().st_size for path in top.rglob("*") if path.is_file() and not path.is_symlink())


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="snappy-demo-") as folder:
        try:
            Demo(Path(folder).resolve()).run()
        except Unexpected as error:
            print(f"\nthe demo failed: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
