"""A file that is read in parts: whoever wants it hears what one reader would have told."""

from __future__ import annotations

from snappy.repository.blocks import Cut
from snappy.repository.entries import Recipe
from snappy.repository.format import MIB
from snappy.repository.relay import FilePart, Relay


class File:
    """Notes what it is told."""

    recipe = Recipe("module:name", ())
    cut: Cut | None = None

    def __init__(self, skip: int = 0) -> None:
        self.size, self.skip = 100 * MIB, skip
        self.told: list[object] = []

    def begun(self, skipped: bool) -> None:
        self.told.append(("begun", skipped))

    def read(self, blob: bytes, size: int) -> None:
        self.told.append((blob, size))

    def done(self, changed: str) -> None:
        self.told.append(("done", changed))

    def lost(self, why: str) -> None:
        self.told.append(("lost", why))


def three_parts(file: File) -> list[FilePart]:
    """Each of one blob, begun but not done."""
    parts = [Relay(file).part(file.skip)]
    for number in range(3):
        parts[-1].begun(parts[-1].skip > 0)
        parts[-1].read(b"%d" % number, 7)
        if number < 2:
            following = parts[-1].reached(parts[-1].skip + 7)
            assert following is not None
            parts.append(following)
    return parts


def test_parts_are_told_in_their_order_whichever_is_done_first() -> None:
    file = File()
    first, second, third = three_parts(file)
    third.done("")
    second.done("it changed")
    assert file.told == [("begun", False)]
    first.done("it changed again")
    assert file.told == [("begun", False), (b"0", 7), (b"1", 7), (b"2", 7), ("done", "it changed")]


def test_a_file_begins_where_an_earlier_attempt_has_left_it() -> None:
    file = File(skip=50)
    for part in three_parts(file):
        part.done("")
    assert file.told == [("begun", True), (b"0", 7), (b"1", 7), (b"2", 7), ("done", "")]


def test_with_one_part_all_is_lost_and_no_more_are_read() -> None:
    file = File()
    first, second, third = three_parts(file)
    second.lost("it cannot be read")
    third.lost("neither can this")
    first.done("")
    assert third.reached(28) is None
    assert file.told == [("begun", False), ("lost", "it cannot be read")]


def test_a_part_that_was_read_from_elsewhere_is_not_taken_for_it() -> None:
    file = File()
    first = Relay(file).part(0)
    first.begun(False)
    second = first.reached(7)
    assert second is not None
    second.begun(False)
    second.done("")
    first.done("")
    assert file.told == [("begun", False), ("lost", "it cannot be read in parts")]


def test_a_part_weighs_what_can_be_read_of_it() -> None:
    relay = Relay(File())
    assert [relay.part(skip).size for skip in (0, 99 * MIB, 101 * MIB)] == [8 * MIB, MIB, 0]
