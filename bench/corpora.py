"""What is backed up: trees and files made from a fixed seed, kept in a folder and used again while their stamp fits.

=========  ==========================================================================================================
``tree``   60,000 files like a /usr, about 2 GB: sizes from bytes to tens of MB, text, programs and what is compressed
           already, folders, links, modes, times
``tiny``   200,000 files of 1 KiB
``noise``  one file of 2 GiB that nothing compresses
``image``  one sparse disk image of 4 GiB: half holes, the rest zeros, text and noise
``million``  1,000,000 files of up to 1 KiB
=========  ==========================================================================================================

``scale`` multiplies the number of files, or the size of the one file. :meth:`Corpus.changed` stands for a corpus of
its own: while it lasts, 1 % of the files have changed and 0.1 % have another name, where they were backed up before.
"""

from __future__ import annotations

import bisect
import json
import os
import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from bench import contents
from bench.contents import SEED, Maker

Picked = TypeVar("Picked")
Kinds = tuple[tuple[float, Maker], ...]

VERSION = 1
"""Of how corpora are made: what was made otherwise is made again."""
MIB = 1 << 20
EPOCH = 1_600_000_000
"""Files were changed in the five years from here, in Unix seconds."""
YEARS = 5 * 365 * 86400
SIZES = (
    *((0.0, 1), (0.01, 40), (0.05, 187), (0.10, 411), (0.20, 743), (0.30, 1079), (0.40, 1445), (0.50, 2028)),
    *((0.60, 3075), (0.70, 4996), (0.80, 10098), (0.90, 24405), (0.95, 54161), (0.99, 262491), (0.999, 3 * MIB)),
    (1.0, 32 * MIB),
)
"""Which share of a /usr's files is smaller than how many bytes: counted on one, but for the largest."""
MODES = ((0.984, 0o644), (0.9985, 0o755), (0.9996, 0o444), (1.0, 0o4755))
SMALL_KINDS: Kinds = ((0.65, contents.text), (0.88, contents.code), (1.0, contents.noise))
LARGE_KINDS: Kinds = ((0.25, contents.text), (0.80, contents.code), (1.0, contents.noise))
LARGE = 256 << 10
EXTENTS: tuple[tuple[float, Maker | None], ...] = (
    *((0.50, None), (0.62, contents.zeros), (0.90, contents.text)),
    (1.0, contents.noise),
)
"""Of a disk image; None is a hole."""
LARGEST_EXTENT, SMALLEST_EXTENT = 32 * MIB, 64 << 10
FILES_IN_A_FOLDER = 8
FILES_IN_A_FLAT_FOLDER = 1000
LINKS = 0.047
"""How many links a file there are."""
CHANGED, RENAMED = 0.01, 0.001


class File(NamedTuple):
    """One file of a tree: everything about it follows from its number."""

    path: str
    size: int
    mode: int
    make: Maker
    rng: random.Random

    def write(self, path: str) -> None:
        with open(path, "wb", buffering=0) as file:
            for block in contents.blocks(self.make, self.rng, self.size):
                file.write(block)
            os.fchmod(file.fileno(), self.mode)
        moment = EPOCH * 10**9 + self.rng.randrange(YEARS * 10**9)
        os.utime(path, ns=(moment, moment))


@dataclass(frozen=True)
class Recipe:
    """``make`` fills a folder with ``count`` files, or with one of ``count`` bytes; ``file`` describes a tree's
    n-th file, and is None for a single file."""

    count: int
    make: Callable[[Path, int], None]
    file: Callable[[int], File] | None = None


@dataclass(frozen=True)
class Corpus:
    """``data`` is what is backed up. The stamp beside it goes while the data are not as the recipe makes them."""

    name: str
    folder: Path
    scale: float

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def count(self) -> int:
        """Files of a tree, bytes of a single file."""
        return max(1, round(RECIPES[self.name].count * self.scale))

    @property
    def is_tree(self) -> bool:
        return RECIPES[self.name].file is not None

    def stamp(self) -> Mapping[str, object]:
        return {"version": VERSION, "seed": SEED, "name": self.name, "count": self.count}

    def is_built(self) -> bool:
        try:
            return bool(json.loads(self._stamp.read_text()) == self.stamp())
        except (FileNotFoundError, ValueError):
            return False

    def build(self) -> None:
        """Make it, unless it is there."""
        if self.is_built():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.data.mkdir(parents=True)
        RECIPES[self.name].make(self.data, self.count)
        self._write_stamp()

    @contextmanager
    def changed(self) -> Iterator[int]:
        """Change a tree for as long as the context lasts; how many files are others then. Afterwards all is as it
        was, but for the ctimes."""
        describe = RECIPES[self.name].file
        assert describe is not None
        rng = random.Random(f"{SEED} {self.name} changed")
        altered = rng.sample(range(self.count), max(1, round(self.count * CHANGED)))
        moved = rng.sample(sorted(set(range(self.count)) - set(altered)), round(self.count * RENAMED))
        folders = _times({os.path.dirname(f"{self.data}/{describe(number).path}") for number in moved})
        self._stamp.unlink()
        for number in altered:
            self._alter(describe(number), rng)
        for number in moved:
            self._rename(describe(number), "", ".renamed")
        yield len(altered) + len(moved)
        for number in altered:
            file = describe(number)
            file.write(f"{self.data}/{file.path}")
        for number in moved:
            self._rename(describe(number), ".renamed", "")
        for path, times in folders.items():
            os.utime(path, ns=times)
        self._write_stamp()

    def _alter(self, file: File, rng: random.Random) -> None:
        """Half of them grow at their end; the others' bytes change in the middle."""
        path = f"{self.data}/{file.path}"
        amount = rng.randint(1, 4096)
        with open(path, "r+b") as opened:
            opened.seek(file.size if rng.random() < 0.5 else file.size // 2)
            opened.write(rng.randbytes(amount))

    def _rename(self, file: File, before: str, after: str) -> None:
        os.rename(f"{self.data}/{file.path}{before}", f"{self.data}/{file.path}{after}")

    def _write_stamp(self) -> None:
        self._stamp.write_text(json.dumps(self.stamp()))

    @property
    def _stamp(self) -> Path:
        return self.folder / "stamp.json"


def corpus(name: str, cache: Path, scale: float = 1.0) -> Corpus:
    """A corpus in its place below ``cache``, which :meth:`Corpus.build` fills."""
    return Corpus(name, cache / f"{name}-{scale:g}", scale)


def copy_share(source: Path, share: float, folder: Path) -> Path:
    """A folder of copies that hold ``share`` of the bytes below ``source``: of some of its files, or of the start of
    its only one."""
    folder.mkdir(parents=True)
    paths = sorted(path for path in source.rglob("*") if path.is_file() and not path.is_symlink())
    seen = taken = 0
    for number, path in enumerate(paths):
        size = path.stat().st_size
        seen += size
        missing = int(seen * share) - taken
        if missing >= size or len(paths) == 1:
            taken += _copy_start(path, folder / f"{number}", min(size, missing))
    return folder


def _times(paths: Iterable[str]) -> dict[str, tuple[int, int]]:
    found = {path: os.stat(path) for path in paths}
    return {path: (seen.st_atime_ns, seen.st_mtime_ns) for path, seen in found.items()}


def _copy_start(path: Path, copy: Path, size: int) -> int:
    with path.open("rb") as source, copy.open("wb") as made:
        for start in range(0, size, MIB):
            made.write(source.read(min(MIB, size - start)))
    return size


# ---- recipes ---------------------------------------------------------------------------------------------------------


def pick(table: tuple[tuple[float, Picked], ...], share: float) -> Picked:
    """The first member of a table whose share is not below the one given."""
    return table[bisect.bisect_left(table, share, hi=len(table) - 1, key=lambda each: each[0])][1]


def size_at(share: float) -> int:
    """The size below which that share of a /usr's files lie."""
    at = bisect.bisect_left(SIZES, share, lo=1, hi=len(SIZES) - 1, key=lambda each: each[0])
    (low, small), (high, large) = SIZES[at - 1], SIZES[at]
    return int(small * (large / small) ** ((share - low) / (high - low)))


def _tree_file(number: int) -> File:
    rng = random.Random(f"{SEED} tree {number}")
    size = size_at(rng.random())
    make = pick(LARGE_KINDS if size > LARGE else SMALL_KINDS, rng.random())
    path = f"{folder_of(number // FILES_IN_A_FOLDER)}/file {number}"
    return File(path, size, pick(MODES, rng.random()), make, rng)


def folder_of(number: int) -> str:
    """The n-th folder of a tree: most lie in one that came earlier."""
    names = [f"folder {number}"]
    while number:
        number = random.Random(f"{SEED} folder {number}").randrange(number) // 2
        names.append(f"folder {number}")
    return "/".join(reversed(names))


def _tiny_file(number: int) -> File:
    rng = random.Random(f"{SEED} tiny {number}")
    return File(f"{number // FILES_IN_A_FLAT_FOLDER}/{number}", 1024, 0o644, contents.text, rng)


def _small_file(number: int) -> File:
    rng = random.Random(f"{SEED} million {number}")
    top, below = divmod(number // FILES_IN_A_FLAT_FOLDER, 32)
    return File(f"{top}/{below}/{number}", rng.randint(16, 1024), 0o644, contents.text, rng)


def _make_tree(folder: Path, count: int) -> None:
    _make_files(_tree_file)(folder, count)
    rng = random.Random(f"{SEED} links")
    for number in range(round(count * LINKS)):
        aimed = _tree_file(rng.randrange(count)).path
        os.symlink(os.path.basename(aimed), folder / os.path.dirname(aimed) / f"link {number}")


def _make_files(describe: Callable[[int], File]) -> Callable[[Path, int], None]:
    def make(folder: Path, count: int) -> None:
        made = set[str]()
        for file in map(describe, range(count)):
            top = f"{folder}/{os.path.dirname(file.path)}"
            if top not in made:
                os.makedirs(top, exist_ok=True)
                made.add(top)
            file.write(f"{folder}/{file.path}")

    return make


def _make_noise(folder: Path, size: int) -> None:
    with open(folder / "noise", "wb") as file:
        for block in contents.blocks(contents.noise, random.Random(f"{SEED} noise"), size):
            file.write(block)


def _make_image(folder: Path, size: int) -> None:
    rng = random.Random(f"{SEED} image")
    with open(folder / "disk.img", "wb") as file:
        file.truncate(size)
        start = 0
        while start < size:
            length = min(size - start, rng.randrange(SMALLEST_EXTENT, LARGEST_EXTENT, 4096))
            _write_extent(file.fileno(), start, length, rng)
            start += length


def _write_extent(descriptor: int, start: int, length: int, rng: random.Random) -> None:
    make = pick(EXTENTS, rng.random())
    if make is None:
        return
    os.lseek(descriptor, start, os.SEEK_SET)
    for block in contents.blocks(make, rng, length):
        os.write(descriptor, block)


RECIPES = {
    "tree": Recipe(60_000, _make_tree, _tree_file),
    "tiny": Recipe(200_000, _make_files(_tiny_file), _tiny_file),
    "noise": Recipe(2048 * MIB, _make_noise),
    "image": Recipe(4096 * MIB, _make_image),
    "million": Recipe(1_000_000, _make_files(_small_file), _small_file),
}
