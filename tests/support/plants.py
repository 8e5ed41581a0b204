"""Damage planted in copies of one small repository, and what a check has to say of each: computed from the bytes that
changed, with no help from what checks."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from snappy.repository.entries import Node
from snappy.repository.format import BlobId, BlobType
from snappy.repository.pack_writer import Options
from snappy.repository.repo import Repository
from snappy.repository.snapshots import Snapshot
from snappy.repository.store import Store
from tests.support.engine import CHEAP, PASSWORD, PrivateMemory, memory_store

Files = dict[str, bytes]
"""All of a repository, by path below its root."""
Told = set[tuple[str, str]]
"""Kinds of findings, and the ids that they are about."""
Blob = tuple[BlobType, BlobId]

OTHER_PASSWORD = "another's"
SNAPSHOTS = 3
SMALL_PACKS = Options(pack_size=4000)
START = datetime(2026, 1, 1, tzinfo=UTC)


class Place(NamedTuple):
    """Where a copy of a blob lies."""

    blob: Blob
    offset: int
    length: int


@dataclass
class Original:
    """A whole repository, and all that one has to know of it to say what damage does."""

    files: Files
    key: str
    """The path of the one that opens with ``PASSWORD``."""
    packs: dict[str, list[Place]] = field(default_factory=dict)
    lists: dict[str, set[str]] = field(default_factory=dict)
    """By index file, the packs that it lists."""
    roots: dict[str, BlobId] = field(default_factory=dict)
    """By snapshot."""
    trees: dict[BlobId, list[Node]] = field(default_factory=dict)
    contents: dict[BlobId, bytes] = field(default_factory=dict)

    def of(self, folder: str) -> list[str]:
        """The paths of all files there."""
        return [path for path in self.files if path.startswith(folder + "/")]

    def blobs_size(self, pack: str) -> int:
        return sum(place.length for place in self.packs[pack])


# ---- the repository --------------------------------------------------------------------------------------------------


def make() -> Original:
    """Three snapshots, each with index files of its own, directories that they share, and blobs that lie twice."""
    noise = random.Random(5)
    made = Repository.init(memory_store(), PASSWORD, random=noise.randbytes, cost=CHEAP)
    other = made.keys(CHEAP).add(OTHER_PASSWORD)
    contents: dict[BlobId, bytes] = {}
    for number in range(SNAPSHOTS):
        with Repository.open(made.store, PASSWORD, options=SMALL_PACKS, random=noise.randbytes) as repository:
            if number != 1:  # who does not know what is there stores it again
                repository.load_index()
            root = _folder(repository, noise, contents, number, depth=3)
            repository.flush()
            repository.save_snapshot(
                Snapshot(time=START + timedelta(days=number), tree=root.hex(), paths=["/"], hostname="here")
            )
    return _known(made.store, contents, other)


def _folder(
    repository: Repository, noise: random.Random, contents: dict[BlobId, bytes], number: int, depth: int
) -> BlobId:
    nodes = [_file(repository, b"same", [b"same %d" % depth * 200, b"always %d" % depth], contents)]
    for each in range(3):
        parts = [noise.randbytes(noise.randrange(1, 1500)) for _ in range(each)]
        nodes.append(_file(repository, b"%d-%d" % (number, each), parts, contents))
    nodes.append(Node(name=b"link", type="symlink", mode=0o777, link_target=b"nowhere \xff"))
    if depth:
        for name in (b"a", b"b"):
            below = _folder(repository, noise, contents, number, depth - 1) if name == b"a" else _shared(repository)
            nodes.append(Node(name=name, type="dir", mode=0o755, subtree=below))
    return repository.save_tree(nodes).id


def _shared(repository: Repository) -> BlobId:
    return repository.save_tree([Node(name=b"shared", type="fifo", mode=0o600)]).id


def _file(repository: Repository, name: bytes, parts: list[bytes], contents: dict[BlobId, bytes]) -> Node:
    content = [repository.save_blob(BlobType.DATA, part).id for part in parts]
    contents.update(zip(content, parts, strict=True))
    return Node(name=name, type="file", mode=0o640, size=sum(map(len, parts)), content=content)


def _known(store: Store, contents: dict[BlobId, bytes], other_key: str) -> Original:
    files = files_of(store)
    (key,) = [path for path in files if path.startswith("keys/") and not path.endswith(other_key)]
    original = Original({key: files[key]} | files, key, contents=contents)  # in an order that is always the same
    with Repository.open(store, PASSWORD) as repository:
        repository.load_index()
        for place in sorted(repository.index, key=lambda place: place.offset):
            places = original.packs.setdefault(place.pack.hex(), [])
            places.append(Place((place.kind, place.id), place.offset, place.length))
            if place.kind is BlobType.TREE:
                original.trees[place.id] = repository.load_tree(place.id)
        original.roots = {one.id: one.tree_id for one in repository.snapshots()}
    for path in original.of("index"):
        alone = store_of(
            {path: data for path, data in original.files.items() if "index/" not in path} | {path: original.files[path]}
        )
        with Repository.open(alone, PASSWORD) as repository:
            repository.load_index()
            original.lists[path.rpartition("/")[2]] = {pack.hex() for pack in repository.index.packs()}
    return original


def files_of(store: Store) -> Files:
    fs = store._fs
    return {path.removeprefix("/repo/"): fs.cat_file(path) for path in sorted(fs.find("/repo"))}


def store_of(files: Files) -> Store:
    """A store in memory that holds them."""
    fs = PrivateMemory()
    for path, data in files.items():
        fs.pipe_file(f"/repo/{path}", data)
    return memory_store(fs)


def pack_path(pack: str) -> str:
    return f"data/{pack[:2]}/{pack}"


# ---- what a check has to say -----------------------------------------------------------------------------------------


class Expected(NamedTuple):
    damage: Told
    hints: Told


class Oracle:
    """What there is to be said of ``files``, which were ``original``'s and of which bytes changed."""

    def __init__(self, original: Original, files: Files) -> None:
        self.original, self.files = original, files
        self.indexes = {path.rpartition("/")[2] for path in original.of("index") if self.is_same(path)}
        self.listed = set().union(*(original.lists[name] for name in self.indexes))

    @property
    def index_is_whole(self) -> bool:
        return {path for path in self.files if path.startswith("index/") and _is_name(path)} == {
            f"index/{name}" for name in self.indexes
        }

    @property
    def opens(self) -> bool:
        """With the first password."""
        return self.is_same("config") and self.is_same(self.original.key)

    def is_same(self, path: str) -> bool:
        return self.files.get(path) == self.original.files[path]

    def is_whole(self, pack: str, place: Place) -> bool:
        """Whether a copy of a blob is as it was."""
        end = place.offset + place.length
        was, found = self.original.files[pack_path(pack)], self.files.get(pack_path(pack), b"")
        return len(found) >= end and found[place.offset : end] == was[place.offset : end]

    def expected(self) -> Expected:
        damage = {("key-damaged", name) for name in self._changed("keys")}
        damage |= {("snapshot-damaged", name) for name in self._changed("snapshots")}
        damage |= {("index-damaged", name) for name in self._changed("index")}
        damage |= {(kind, pack) for pack in self.listed if (kind := self._fault(pack))}
        hints: Told = set()
        if self.index_is_whole:
            damage |= set(self._faults_of_trees())
            hints = {("pack-unlisted", name) for name in self._present() - self.listed}
        return Expected(damage, hints)

    def _changed(self, folder: str) -> Iterator[str]:
        """Those that are there, and not as they were."""
        for path in self.files:
            if path.startswith(folder + "/") and _is_name(path) and self.files[path] != self.original.files.get(path):
                yield path.rpartition("/")[2]

    def _present(self) -> set[str]:
        names = {path.rpartition("/")[2] for path in self.files if path.startswith("data/") and _is_name(path)}
        return {name for name in names if pack_path(name) in self.files}

    def _fault(self, pack: str) -> str:
        was, found = self.original.files[pack_path(pack)], self.files.get(pack_path(pack))
        if found is None:
            return "pack-missing"
        if len(found) != len(was):
            return "pack-size"
        return "" if found == was else "pack-changed"

    def _faults_of_trees(self) -> Iterator[tuple[str, str]]:
        copies = [(pack, place) for pack in self.listed for place in self.original.packs[pack]]
        listed = {place.blob for _, place in copies}
        whole = {place.blob for pack, place in copies if self.is_whole(pack, place)}
        roots = [tree for name, tree in self.original.roots.items() if self.is_same(f"snapshots/{name}")]
        seen: set[BlobId] = set()
        while roots:
            tree = roots.pop()
            if tree in seen:
                continue
            seen.add(tree)
            if (BlobType.TREE, tree) not in listed:
                yield "tree-missing", tree.hex()
            elif (BlobType.TREE, tree) not in whole:
                yield "tree-damaged", tree.hex()
            else:
                for node in self.original.trees[tree]:
                    roots += [node.subtree] if node.subtree else []
                    for blob in node.content or ():
                        if (BlobType.DATA, blob) not in listed:
                            yield "blob-missing", blob.hex()


def _is_name(path: str) -> bool:
    name = path.rpartition("/")[2]
    return len(name) == 64 and set(name) <= set("0123456789abcdef")


# ---- what is planted -------------------------------------------------------------------------------------------------

Plant = Callable[[Original, Files, random.Random], None]
"""Changes the files."""


def _any(files: Iterable[str], chance: random.Random) -> str:
    return chance.choice(list(files))


def _victim(original: Original, files: Files, chance: random.Random) -> str:
    """Of each kind of file as often, of a pack's blobs, header and length too."""
    folder = chance.choice(["data", "data", "data", "index", "snapshots", "keys"])
    return _any((path for path in original.of(folder) if files.get(path)), chance)


def _position(original: Original, path: str, size: int, chance: random.Random) -> int:
    name = path.rpartition("/")[2]
    regions = [(0, size)]
    if path.startswith("data/") and size == len(original.files[path]):
        blobs = original.blobs_size(name)
        regions = [(0, blobs), (blobs, size - 4), (size - 4, size)]
    return chance.randrange(*chance.choice(regions))


def flip_a_bit(original: Original, files: Files, chance: random.Random) -> None:
    path = _victim(original, files, chance)
    data = bytearray(files[path])
    data[_position(original, path, len(data), chance)] ^= 1 << chance.randrange(8)
    files[path] = bytes(data)


def zero_a_block(original: Original, files: Files, chance: random.Random) -> None:
    path = _victim(original, files, chance)
    data = bytearray(files[path])
    start = _position(original, path, len(data), chance)
    data[start : start + 512] = bytes(len(data[start : start + 512]))
    files[path] = bytes(data)


def cut_short(original: Original, files: Files, chance: random.Random) -> None:
    path = _victim(original, files, chance)
    files[path] = files[path][: chance.randrange(len(files[path]))]


def empty(original: Original, files: Files, chance: random.Random) -> None:
    files[_victim(original, files, chance)] = b""


def append_garbage(original: Original, files: Files, chance: random.Random) -> None:
    files[_victim(original, files, chance)] += chance.randbytes(chance.randrange(1, 5000))


def write_twice(original: Original, files: Files, chance: random.Random) -> None:
    files[_victim(original, files, chance)] *= 2


def remove_a_pack(original: Original, files: Files, chance: random.Random) -> None:
    files.pop(_any(original.of("data"), chance), None)


def remove_an_index(original: Original, files: Files, chance: random.Random) -> None:
    files.pop(_any(original.of("index"), chance), None)


def remove_a_snapshot(original: Original, files: Files, chance: random.Random) -> None:
    files.pop(_any(original.of("snapshots"), chance), None)


def swap(original: Original, files: Files, chance: random.Random) -> None:
    """Each of two under the other's name."""
    folder = chance.choice(["data", "data", "index", "snapshots", "keys"])
    here = [path for path in original.of(folder) if path in files]
    if len(here) > 1:
        one, other = chance.sample(here, 2)
        files[one], files[other] = files[other], files[one]


def copy_over(original: Original, files: Files, chance: random.Random) -> None:
    """One's bytes in the place of another of any kind."""
    files[_victim(original, files, chance)] = files[_victim(original, files, chance)]


def swap_blobs(original: Original, files: Files, chance: random.Random) -> None:
    """In one pack each of two in the other's place, or as much of it as fits."""
    packs = [name for name, places in original.packs.items() if len(places) > 1 and pack_path(name) in files]
    if not packs:
        return
    path = pack_path(_any(packs, chance))
    one, other = chance.sample(original.packs[path.rpartition("/")[2]], 2)
    length = min(one.length, other.length)
    data = bytearray(files[path])
    if len(data) >= max(one.offset, other.offset) + length:
        first = data[one.offset : one.offset + length]
        data[one.offset : one.offset + length] = data[other.offset : other.offset + length]
        data[other.offset : other.offset + length] = first
        files[path] = bytes(data)


def foreign_files(original: Original, files: Files, chance: random.Random) -> None:
    """What others leave, or a tool in the middle of its work: no damage."""
    folder = chance.choice(["data", "data/00", "index", "snapshots", "keys", "locks", "elsewhere"])
    name = chance.choice(["README", ".tmp", "x" * 64, "0" * 63, "a" * 64 + ".part"])
    files[f"{folder}/{name}"] = chance.randbytes(chance.randrange(100))


def copy_on_another_shelf(original: Original, files: Files, chance: random.Random) -> None:
    """Nobody looks for a pack there: no damage."""
    _other_shelf(original, files, chance)


def move_to_another_shelf(original: Original, files: Files, chance: random.Random) -> None:
    files.pop(_other_shelf(original, files, chance))


def _other_shelf(original: Original, files: Files, chance: random.Random) -> str:
    path = _any((path for path in original.of("data") if path in files), chance)
    name = path.rpartition("/")[2]
    files[f"data/{'ff' if name[:2] != 'ff' else '00'}/{name}"] = files[path][: chance.randrange(len(files[path]) + 1)]
    return path


def unlisted_pack(original: Original, files: Files, chance: random.Random) -> None:
    """What an unfinished backup leaves: a hint."""
    data = chance.randbytes(chance.randrange(1, 3000))
    files[pack_path(hashlib.sha256(data).hexdigest())] = data


def stray_document(original: Original, files: Files, chance: random.Random) -> None:
    """Nobody with the key wrote it, whatever its name says."""
    data = chance.randbytes(chance.randrange(300))
    name = hashlib.sha256(data).hexdigest() if chance.random() < 0.5 else chance.randbytes(32).hex()
    files[f"{chance.choice(['index', 'snapshots', 'keys'])}/{name}"] = data


PLANTS: tuple[Plant, ...] = (
    flip_a_bit,
    flip_a_bit,
    flip_a_bit,
    zero_a_block,
    cut_short,
    cut_short,
    empty,
    append_garbage,
    write_twice,
    remove_a_pack,
    remove_an_index,
    remove_a_snapshot,
    swap,
    swap,
    copy_over,
    swap_blobs,
    foreign_files,
    copy_on_another_shelf,
    move_to_another_shelf,
    unlisted_pack,
    stray_document,
)


class Planted(NamedTuple):
    name: str
    files: Files


def planted(original: Original, seed: int) -> Planted:
    """The plants of that number: one, or now and then several."""
    chance = random.Random(seed)
    files = dict(original.files)
    chosen = [PLANTS[seed % len(PLANTS)], *chance.choices(PLANTS, k=chance.choice([0, 0, 0, 1, 2]))]
    for plant in chosen:
        plant(original, files, chance)
    return Planted(f"{seed}: {' and '.join(plant.__name__ for plant in chosen)}", files)
