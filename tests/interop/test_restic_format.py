"""The real restic reads, byte for byte and without complaint, what the engine writes; and the other way round."""

from __future__ import annotations

import io
import os
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pytest

from snappy.errors import RepositoryLocked
from snappy.repository.entries import Node
from snappy.repository.format import BlobType
from snappy.repository.index import BLOBS_IN_A_FILE
from snappy.repository.pack_writer import Options
from snappy.repository.repo import Repository
from snappy.repository.snapshots import Snapshot, Summary
from snappy.repository.store import FileType, Store
from snappy.repository.tree import encode_tree
from tests.support import tools
from tests.support.engine import CHEAP, OWNER, PASSWORD
from tests.support.restic import Restic

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
NAMES = (
    b"plain",
    b'"quotes" and \\back\\slashes',
    b"\xff\xfe not utf-8 \x80",
    b"line\nfeed\ttab\a\b\v\f\r\x01\x7f",
    "<html> & \u2028 \u00ad \U0001f600 \U000e0001 é".encode(),
    b"\xe2\x82 cut short",
    "\ufffd".encode(),
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(fsspec.filesystem("file"), str(tmp_path / "repository"))


@pytest.fixture
def restic(restic_program: str, tmp_path: Path) -> Restic:
    return Restic(restic_program, tmp_path / "repository", PASSWORD, tmp_path / "cache")


def odd_nodes(content: list[bytes], size: int, subtree: bytes) -> list[Node]:
    files = [
        Node(name=name, type="file", mode=0o4755, size=size, content=content, mtime_ns=1_700_000_000_123_456_789)
        for name in NAMES
    ]
    return [
        *files,
        Node(name=b"empty", type="file", mode=0o600, content=[], mtime_ns=-1, xattrs={b"user.a": b"\x00\xff"}),
        Node(name=b"link", type="symlink", mode=0o777, link_target=b"to \xff<&>"),
        Node(name=b"sticky", type="dir", mode=0o1777, subtree=subtree),
        Node(name=b"pipe", type="fifo", mode=0o644, user="us\u00e9r", group="gr<up"),
    ]


def write_snapshot(repository: Repository, data: bytes) -> Snapshot:
    """A snapshot of odd names, all of them files with ``data`` for their content."""
    content = [repository.save_blob(BlobType.DATA, chunk).id for chunk in repository.chunks(io.BytesIO(data))]
    subtree = repository.save_tree([])
    root = repository.save_tree(odd_nodes(content, len(data), subtree.id))
    repository.flush()
    summary = Summary(backup_start=NOW, backup_end=NOW, files_new=len(NAMES), total_bytes_processed=len(data))
    snapshot = Snapshot(
        time=NOW, tree=root.id.hex(), paths=["/odd"], hostname="h", tags=["snappy-job:1"], summary=summary
    )
    repository.save_snapshot(snapshot)
    return snapshot


@pytest.mark.parametrize("compression", [None, 3])
def test_restic_accepts_what_the_engine_wrote(
    store: Store, restic: Restic, tmp_path: Path, compression: int | None
) -> None:
    data = os.urandom(3 << 20) + b"compressible" * 200_000
    with Repository.init(store, PASSWORD, cost=CHEAP, options=Options(compression=compression)) as repository:
        snapshot = write_snapshot(repository, data)
    restic.check()
    assert [found["id"] for found in restic.json("snapshots")] == [snapshot.id]
    assert restic.run("cat", "blob", snapshot.tree) == repository.load_blob(BlobType.TREE, snapshot.tree_id)
    restic.run("restore", snapshot.id, "--target", tmp_path / "out")
    restored = {os.fsencode(name) for name in os.listdir(tmp_path / "out")}
    assert restored >= set(NAMES)
    for name in NAMES:
        path = os.path.join(os.fsencode(tmp_path / "out"), name)
        assert Path(os.fsdecode(path)).read_bytes() == data
        assert os.stat(path).st_mtime_ns == 1_700_000_000_123_456_789
        assert os.stat(path).st_mode & 0o7777 == 0o4755


def test_restic_accepts_more_blobs_than_one_index_file_lists(store: Store, restic: Restic) -> None:
    with Repository.init(store, PASSWORD, cost=CHEAP, options=Options(pack_size=1 << 17)) as repository:
        content = [repository.save_blob(BlobType.DATA, b"%d" % number).id for number in range(BLOBS_IN_A_FILE + 5000)]
        size = sum(len(b"%d" % number) for number in range(len(content)))
        root = repository.save_tree([Node(name=b"file", type="file", mode=0o600, size=size, content=content)])
        repository.flush()
        repository.save_snapshot(Snapshot(time=NOW, tree=root.id.hex(), paths=["/odd"], hostname="h"))
    assert len(store.list(FileType.INDEX)) > 1
    restic.check()


def test_restic_lists_the_same_names(store: Store, restic: Restic) -> None:
    with Repository.init(store, PASSWORD, cost=CHEAP) as repository:
        write_snapshot(repository, b"x")
    nodes = [line for line in restic.json("ls", "latest") if line["struct_type"] == "node"]
    assert {node["type"] for node in nodes} == {"file", "dir", "symlink", "fifo"}
    assert len(nodes) == len(odd_nodes([], 0, b""))


def test_the_engine_reads_what_restic_wrote(restic: Restic, store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number, name in enumerate(NAMES):
        (source / os.fsdecode(name)).write_bytes(os.urandom(number) * 400_000)
    os.symlink("to <é>", source / "link")
    restic.run("init")
    restic.run("backup", "--tag", "one", ".", cwd=source)
    with Repository.open(store, PASSWORD) as repository:
        snapshot = repository.find_snapshot("latest", tags=["one"])
        repository.load_index()
        nodes = repository.load_tree(snapshot.tree_id)
        # Byte for byte: else each of the two programs would store the other's unchanged directories again.
        assert encode_tree(nodes) == repository.load_blob(BlobType.TREE, snapshot.tree_id)
        assert {node.name for node in nodes} >= {*NAMES, b"link"}
        for node in nodes:
            if node.type == "file":
                blobs = [repository.load_blob(BlobType.DATA, blob) for blob in node.content or ()]
                assert b"".join(blobs) == (source / os.fsdecode(node.name)).read_bytes()


@pytest.mark.restic_newest
def test_a_link_to_a_name_that_is_not_utf8(store: Store, tmp_path: Path) -> None:
    restic = Restic(str(tools.newest_restic()), tmp_path / "repository", PASSWORD, tmp_path / "cache")
    (tmp_path / "source").mkdir()
    os.symlink(b'\xff\xe2\x82<"\x80a', tmp_path / "source" / "link")
    restic.run("init")
    restic.run("backup", ".", cwd=tmp_path / "source")
    with Repository.open(store, PASSWORD) as repository:
        tree = repository.find_snapshot("latest").tree_id
        repository.load_index()
        assert repository.load_tree(tree)[0].link_target == b'\xff\xe2\x82<"\x80a'
        assert encode_tree(repository.load_tree(tree)) == repository.load_blob(BlobType.TREE, tree)


def test_trees_of_a_real_backup_are_encoded_byte_for_byte(restic: Restic, store: Store) -> None:
    restic.run("init")
    restic.run("backup", Path(__file__).parent)
    with Repository.open(store, PASSWORD) as repository:
        snapshot = repository.find_snapshot("latest")
        repository.load_index()
        waiting, seen = [snapshot.tree_id], 0
        while waiting:
            tree = waiting.pop()
            nodes = repository.load_tree(tree)
            assert encode_tree(nodes) == repository.load_blob(BlobType.TREE, tree)
            waiting += [node.subtree for node in nodes if node.subtree]
            seen += 1
    assert seen > len(Path(__file__).parent.parts) - 1


def test_both_write_into_one_repository(restic: Restic, store: Store, tmp_path: Path) -> None:
    with Repository.init(store, PASSWORD, cost=CHEAP) as repository:
        write_snapshot(repository, os.urandom(1 << 20))
    (tmp_path / "file").write_bytes(b"of restic")
    restic.run("backup", tmp_path / "file")
    with Repository.open(store, PASSWORD) as repository:
        repository.load_index()
        write_snapshot(repository, os.urandom(1 << 20))
        assert len(repository.snapshots()) == 3
    restic.check()


def test_restic_prunes_what_the_engine_wrote(restic: Restic, store: Store) -> None:
    with Repository.init(store, PASSWORD, cost=CHEAP) as repository:
        first = write_snapshot(repository, os.urandom(2 << 20))
        last = write_snapshot(repository, os.urandom(2 << 20))
    restic.run("forget", first.id, "--prune")
    restic.check()
    with Repository.open(store, PASSWORD) as repository:
        repository.load_index()
        assert [found.id for found in repository.snapshots()] == [last.id]
        for node in repository.load_tree(last.tree_id):
            for blob in node.content or ():
                repository.load_blob(BlobType.DATA, blob)


def test_each_respects_the_others_locks(restic: Restic, store: Store, tmp_path: Path) -> None:
    with Repository.init(store, PASSWORD, cost=CHEAP) as repository, repository.lock(owner=OWNER):
        refused = restic.attempt("check")
        assert refused.returncode != 0
        assert b"snappy.site.r1" in refused.stderr
        (tmp_path / "file").write_bytes(b"")
        restic.run("backup", tmp_path / "file")  # shared locks go together
        with pytest.raises(RepositoryLocked), repository.lock(owner=OWNER, exclusive=True):
            pass
    assert store.list(FileType.LOCK) == []
    restic.check()


def test_a_second_password(restic: Restic, store: Store, tmp_path: Path) -> None:
    with Repository.init(store, PASSWORD, cost=CHEAP) as repository:
        repository.keys(CHEAP).add("second")
    restic.environment["RESTIC_PASSWORD"] = "second"
    restic.check()
    (tmp_path / "third").write_text("third")
    restic.run("key", "add", "--new-password-file", tmp_path / "third")
    with Repository.open(store, "third") as again:
        assert again.id == repository.id


def test_version_1_is_read_and_written(restic: Restic, store: Store, tmp_path: Path) -> None:
    restic.run("init", "--repository-version", "1")
    (tmp_path / "file").write_bytes(b"of restic" * 1000)
    restic.run("backup", tmp_path / "file")
    with Repository.open(store, PASSWORD) as repository:
        assert repository.config.version == 1
        repository.load_index()
        assert repository.load_tree(repository.find_snapshot("latest").tree_id)
        write_snapshot(repository, b"compressible" * 100_000)
    restic.check()
