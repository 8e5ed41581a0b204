"""How commands that look into snapshots open a repository, and find the snapshots that they are asked for."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path

import msgspec

from snappy import log
from snappy.browse import words
from snappy.browse.opening import open_repository
from snappy.browse.remote import RemoteLibrary
from snappy.cli import options, output, passwords, session
from snappy.errors import AccessDenied, Damaged, SnapshotNotFound
from snappy.frontend.api import Client
from snappy.repository.browsable import NoDirectory
from snappy.repository.entries import Node
from snappy.repository.locks import LockOwner
from snappy.repository.paths import ROOT, shown
from snappy.repository.progress import Problems
from snappy.repository.repo import Repository
from snappy.repository.snapshot_tree import SnapshotTree
from snappy.repository.snapshot_walk import Kind, Selection, SnapshotWalk
from snappy.repository.snapshots import LATEST, Snapshot, matches
from snappy.repository.view import View
from snappy.sources.workshop import user_name

_LOG = log.get(__name__)


@contextmanager
def opened(arguments: argparse.Namespace) -> Iterator[View]:
    """The repository at ``arguments.place``: here, or through the source service that has its key. Raises UsageError,
    RepositoryError, StorageError, BusError and Denied."""
    settings = options.load(arguments)
    if settings.nats.url or not options.is_place(arguments.place):
        library = RemoteLibrary(_way(arguments), arguments.place, arguments.key or "default")
        with closing(library):
            yield View(library)
        return
    cache = Path(settings.state_dir, "indexes").expanduser().absolute() if settings.state_dir else None
    url, password = options.as_url(arguments.place), passwords.find(arguments)
    with open_repository(url, password, cache=cache) as repository, _locked(repository, arguments):
        yield View(repository)


@asynccontextmanager
async def _way(arguments: argparse.Namespace) -> AsyncIterator[tuple[Client, str]]:
    async with session.for_repository(arguments) as opened:
        yield opened.client, opened.source


@contextmanager
def _locked(repository: Repository, arguments: argparse.Namespace) -> Iterator[None]:
    """Others may write meanwhile, but not prune. Who may only read works all the same."""
    owner = LockOwner(
        hostname=socket.gethostname(), username=user_name(), pid=os.getpid(), uid=os.getuid(), gid=os.getgid()
    )
    with ExitStack() as held:
        if not arguments.no_lock:
            try:
                held.enter_context(repository.lock(owner=owner, settle_later=True))
            except AccessDenied:
                _LOG.info("reading without a lock, for lack of the right to write one")
        yield


def chosen(view: View, arguments: argparse.Namespace) -> list[Snapshot]:
    """The snapshots that pass the filters, oldest first."""
    return [snapshot for snapshot in view.snapshots() if _passes(snapshot, arguments)]


def _passes(snapshot: Snapshot, arguments: argparse.Namespace) -> bool:
    """Any of the hosts, any of the lists of tags, all of the paths."""
    tags = [each.split(",") for each in arguments.tag] or [[]]
    return any(matches(snapshot, hosts=arguments.host, tags=each, paths=arguments.path) for each in tags)


def named(view: View, names: list[str], arguments: argparse.Namespace) -> list[Snapshot]:
    """The snapshots of those names; without any, all that pass the filters. Raises SnapshotNotFound."""
    if not names:
        return chosen(view, arguments)
    found = [tree(view, each, arguments).snapshot for each in names]
    return list({snapshot.id: snapshot for snapshot in found}.values())


def tree(view: View, spec: str, arguments: argparse.Namespace) -> SnapshotTree:
    """The snapshot of an id, first letters of one, or ``latest`` (of those that pass the filters); with ``:FOLDER``
    behind it, that folder as if it were the root. Raises SnapshotNotFound, MissingPath and NoDirectory."""
    name, _, below = spec.partition(":")
    found = _latest(view, arguments) if name == LATEST else view.tree(name)
    if not below:
        return found
    node = found.node(words.raw(below), follow=True)
    if node.subtree is None:
        raise NoDirectory(f"{below} is no directory, but a {node.type}")
    return view.tree_of(msgspec.structs.replace(found.snapshot, tree=node.subtree.hex()))


def _latest(view: View, arguments: argparse.Namespace) -> SnapshotTree:
    if not any(getattr(arguments, name, None) for name in ("host", "tag", "path")):
        return view.tree(LATEST)
    found = chosen(view, arguments)
    if not found:
        raise SnapshotNotFound("there is no snapshot yet, or none that passes the filters")
    return view.tree_of(found[-1])


def walk(view: View, snapshot: Snapshot, folder: bytes = ROOT) -> Iterator[tuple[bytes, Node]]:
    """What is below a folder, directories before what is in them. What cannot be read is told on the way; at the end
    that is :class:`Damaged`."""
    problems = Problems()
    prefix = b"" if folder == ROOT else folder
    for step in SnapshotWalk(view.indexed(), Selection(), problems).steps(snapshot, folder):
        if step.kind is not Kind.LEAVE:
            yield prefix + step.path, step.node
    tell(problems, snapshot, prefix)


def tell(problems: Problems, snapshot: Snapshot, prefix: bytes = b"") -> None:
    """What of a snapshot could not be read. Raises :class:`Damaged` if there is any."""
    for problem in problems.kept:
        output.note(f"{shown(prefix + problem.path)}: {problem.message}")
    if problems.total:
        raise Damaged(f"{problems.total} places of snapshot {snapshot.id[:8]} could not be read")
