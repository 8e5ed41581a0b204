"""What a source service does for a prune: the repository is opened and locked, and the plan becomes words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import msgspec

from snappy.jobs.messages import Result
from snappy.jobs.result_words import Pruned
from snappy.jobs.upkeep import PruneCommand, RepackingCommand
from snappy.repository.prune_plan import PruneOptions
from snappy.repository.pruner import Pruner
from snappy.repository.repo import Repository
from snappy.sources.allow import Ask
from snappy.sources.workshop import Task, Workshop, locked


def prepare(command: PruneCommand, asks: Ask) -> Task:
    """Raises BadOptions."""
    options = options_of(command)
    return Task(asks, lambda shop: asyncio.to_thread(_prune, shop, options, command.dry_run))


def options_of(command: RepackingCommand) -> PruneOptions:
    """Raises BadOptions."""
    options = PruneOptions(
        max_unused=command.max_unused,
        max_repack_size=command.max_repack_size or "",
        repack_smaller_than=command.repack_smaller_than or "",
        repack_cacheable_only=command.repack_cacheable_only,
        repack_uncompressed=command.repack_uncompressed,
    )
    options.limits()
    return options


def _prune(shop: Workshop, options: PruneOptions, dry_run: bool) -> Result:
    began = time.monotonic()
    with Repository.open(shop.store, shop.password) as repository:
        done = prune(repository, shop, options, dry_run=dry_run)
        seconds = time.monotonic() - began
        return Result(repository=repository.id, packs=done.packfiles["total"], seconds=seconds, prune=done)


def prune(
    repository: Repository, shop: Workshop, options: PruneOptions, *, dry_run: bool, without: Iterable[str] = ()
) -> Pruned:
    """Prune a repository whose index nobody has loaded, and on which nobody here holds a lock; a dry run as if the
    snapshots ``without`` were gone."""
    pruner = Pruner(repository, options, without=without, progress=shop.progress, cancelled=shop.hold.check)
    done = pruner.prune(lambda exclusive: locked(repository, shop, exclusive=exclusive), dry_run=dry_run)
    stats = msgspec.to_builtins(done.stats)
    return Pruned(**stats, packs_deleted=done.packs_deleted, bytes_deleted=done.bytes_deleted)
