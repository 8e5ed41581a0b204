"""Rows of a dump, joined to statements whose bounds the rows themselves say.

``mariadb-dump`` joins as many as fit: one that is removed at a table's beginning moves the bounds of all statements
behind it, and nothing of what did not change would be found again. One statement a row is found again, and takes ten
times as long to restore. So rows come one by one, and are joined here until one says that it is the last: its checksum.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Generator, Iterator
from typing import BinaryIO

from snappy.generated import Generated

ROW = re.compile(rb"INSERT INTO `(?:[^`]|``)*`(?: \((?:`(?:[^`]|``)*`(?:, )?)+\))? VALUES (?=\()")
END = b");\n"
SMALLEST = 16 << 10
LARGEST = 1 << 20
"""Bytes of a statement; far less than a server takes in one (``max_allowed_packet``)."""
LAST_OF = 64
"""One row of so many is a statement's last."""
READ_AT_ONCE = 1 << 20


class Joined(Generated):
    """What ``dump`` gives, which has an ``INSERT`` for each row, with the rows joined. A row that is longer than a
    statement may be, and whatever is no row, stays as it is."""

    def __init__(self, dump: BinaryIO) -> None:
        super().__init__(_joined(_lines(dump)))
        self._dump = dump

    def close(self) -> None:
        super().close()
        self._dump.close()


def _lines(dump: BinaryIO) -> Iterator[bytes]:
    """Lines, of which long ones come in parts."""
    while line := dump.readline(LARGEST):
        yield line


def _joined(lines: Iterator[bytes]) -> Generator[bytes, None, None]:
    made, head, size, is_begun = bytearray(), b"", 0, True
    for line in lines:
        row = ROW.match(line) if is_begun and line.endswith(END) else None
        is_begun = line.endswith(b"\n")
        if head and not (row and row[0] == head):
            made += b";\n"
            head = b""
        if row is None:
            made += line
        else:
            piece = b"," + line[row.end() : -2] if head else line[:-2]
            made += piece
            size = size + len(piece) if head else len(piece)
            head = b"" if _is_last(line, size) else row[0]
            made += b"" if head else b";\n"
        if len(made) >= READ_AT_ONCE:
            yield bytes(made)
            made.clear()
    if head:
        made += b";\n"
    if made:
        yield bytes(made)


def _is_last(line: bytes, size: int) -> bool:
    return size >= LARGEST or (size >= SMALLEST and zlib.crc32(line) % LAST_OF == 0)
