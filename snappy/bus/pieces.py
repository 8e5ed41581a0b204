"""A message's payload in parts, so that what is large need not be copied to stand behind what is small."""

from __future__ import annotations

Bytes = bytes | bytearray | memoryview


class Pieces:
    """Parts that are sent one after the other and must not change until then.

    Stands in for bytes where nats-py puts a command together: it adds the command's line in front and a line's end
    behind, and asks for the length.
    """

    __slots__ = ("_size", "parts")

    def __init__(self, *parts: Bytes) -> None:
        self.parts = parts
        self._size = sum(map(len, parts))

    def __len__(self) -> int:
        return self._size

    def __radd__(self, before: Bytes) -> Pieces:
        return Pieces(before, *self.parts)

    def __add__(self, after: Bytes) -> Pieces:
        return Pieces(*self.parts, after)

    def __bytes__(self) -> bytes:
        return b"".join(self.parts)


Payload = bytes | Pieces
