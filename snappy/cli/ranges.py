"""The options that ask for a part of a file, and that part."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from snappy.errors import BadOptions, UsageError

if TYPE_CHECKING:
    from snappy.repository.stored_file import StoredFile


def register(parser: argparse.ArgumentParser) -> None:
    """Add them to a command that prints files."""
    group = parser.add_argument_group("a part of a file (bytes, or for example 64K, 10M, 2G)")
    group.add_argument(
        "--offset", metavar="N", type=_offset, default=0, help="begin there; --offset=-N is N before the end"
    )
    group.add_argument("--length", metavar="N", type=_size, help="print so much, or what there is (default: all)")


def refuse(arguments: argparse.Namespace, what: str) -> None:
    """Raises UsageError where a part is asked for of something that has none."""
    if arguments.offset or arguments.length is not None:
        raise UsageError(f"{what} is no file: --offset and --length are for files")


def stream(stored: StoredFile, arguments: argparse.Namespace) -> Iterator[bytes]:
    """What is asked for of a file, or of it what there is. No more is fetched than the blobs that hold it."""
    offset, length = arguments.offset, arguments.length
    start = offset if offset >= 0 else max(0, stored.size + offset)
    return stored.stream(start, None if length is None else start + length)


def _offset(text: str) -> int:
    return -_size(text[1:]) if text.startswith("-") else _size(text)


def _size(text: str) -> int:
    from snappy.repository.sizes import parse_size

    try:
        return parse_size(text)
    except BadOptions as error:
        raise argparse.ArgumentTypeError(f"{error.message}: {error.hint}") from None
