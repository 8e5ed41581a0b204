"""What a prune did, or would do, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snappy.cli import output

if TYPE_CHECKING:
    from snappy.jobs.result_words import Pruned


def told(done: Pruned, seconds: float) -> str:
    """In two lines."""
    blobs, sizes = done.blobs, done.bytes
    useless = sizes["unused"] + sizes["duplicate"] + sizes["unreferenced"]
    there = f"{blobs['used']} blobs are used, {output.size(sizes['used'])}; {output.size(useless)} are not"
    repacked = f"{done.packfiles['repack']} of them repacked, {output.size(sizes['repack'])}"
    left = f"unused data that stays: {output.size(sizes['remaining_unused'])}"
    return f"{there}\n{_deleted(done)}; {repacked}; {left}; {output.duration(seconds)}"


def _deleted(done: Pruned) -> str:
    packs, sizes = done.packfiles, done.bytes
    if done.packs_deleted:
        return f"deleted: {done.packs_deleted} of {packs['total']} packs, {output.size(done.bytes_deleted)}"
    planned = packs["remove_total"] + packs["repack"]
    return f"to delete: {planned} of {packs['total']} packs, {output.size(sizes['remove_total'])}"
