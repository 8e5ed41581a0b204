"""Numbers for commands that run beside one another."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from snappy.cli import slots
from snappy.errors import UsageError


def test_each_command_has_its_own_number_and_numbers_come_back(tmp_path: Path) -> None:
    with slots.take(str(tmp_path)) as one:
        with slots.take(str(tmp_path)) as two:
            assert (one.source, two.source, two.target) == ("local-1", "local-2", "place-2")
        with slots.take(str(tmp_path)) as again:
            assert again.number == 2


def test_there_is_an_end_to_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "MOST", 1)
    with slots.take(str(tmp_path)), pytest.raises(UsageError), slots.take(str(tmp_path)):
        pass


async def test_the_last_to_leave_knows_it(tmp_path: Path) -> None:
    with slots.take(str(tmp_path)) as own:
        await slots.wait_until_free(str(tmp_path), but=own)
        with slots.take(str(tmp_path)):
            waiting = asyncio.create_task(slots.wait_until_free(str(tmp_path), but=own))
            await asyncio.sleep(0.05)
            assert not waiting.done()
        await asyncio.wait_for(waiting, 5)
