"""Any tree, backed up, changed and backed up again, comes back as it was each time."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import given, settings

from tests.support import engine
from tests.support.backups import back_up, bring_back, inside
from tests.support.compare import compare

names = st.binary(min_size=1, max_size=12).filter(lambda name: name not in (b".", b"..") and not {0, 47} & set(name))
contents = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda head, zeros, tail: head + bytes(zeros) + tail, st.binary(), st.integers(0, 20_000), st.binary()),
)
modes = st.integers(0, 0o7777)
times = st.integers(0, 2**33 * 10**9)
files = st.tuples(st.just("file"), contents, modes, times)
links = st.tuples(st.just("link"), names, st.just(0), times)
folders = st.recursive(
    st.dictionaries(names, st.one_of(files, links), max_size=4),
    lambda inner: st.dictionaries(names, st.one_of(files, links, inner), max_size=4),
    max_leaves=12,
)


def build(place: bytes, folder: dict[bytes, object]) -> None:
    """Make the tree at ``place``, over what may be there from before."""
    os.makedirs(place, exist_ok=True)
    for name, what in folder.items():
        path = os.path.join(place, name)
        if isinstance(what, dict):
            if os.path.lexists(path) and (os.path.islink(path) or not os.path.isdir(path)):
                os.unlink(path)
            build(path, what)
        elif not os.path.isdir(path) or os.path.islink(path):
            make(path, what)


def make(path: bytes, what: object) -> None:
    assert isinstance(what, tuple)
    kind, value, mode, when = what
    if os.path.lexists(path):
        os.unlink(path)
    if kind == "link":
        os.symlink(value, path)
    else:
        with open(path, "wb") as file:
            file.write(value)
        os.chmod(path, mode | 0o400)
    os.utime(path, ns=(when, when), follow_symlinks=False)


@settings(max_examples=25)
@given(first=folders, second=folders)
def test_both_states_come_back(first: dict[bytes, object], second: dict[bytes, object]) -> None:
    with tempfile.TemporaryDirectory() as made, engine.new_repository() as repository:
        top = Path(made)
        tree = top / "tree"
        build(os.fsencode(tree), first)
        earlier = back_up(repository, tree)
        bring_back(repository, earlier.snapshot, top / "first")
        assert compare(tree, inside(top / "first", tree)).differences == []
        build(os.fsencode(tree), second)
        later = back_up(repository, tree, parent=earlier.snapshot)
        assert later.warnings == []
        result = bring_back(repository, later.snapshot, top / "second")
        assert result.errors == []
        assert compare(tree, inside(top / "second", tree)).differences == []
