"""The contract of source plug-ins, over a real bus: what each has to stand, and what a plug-in gives to join.

To join, write a :class:`Ground` for a plug-in, and a file in ``tests/contract/sources`` with::

    @pytest.fixture(scope="module")
    def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
        with running_postgres(tmp_path_factory.mktemp("postgres")) as ground:
            yield ground

    class TestPostgres(SourceContract): ...

Versions of a server are parameters of the fixture. Each test begins with a ground that was wiped. A source service in
another language joins as well: its class says in ``program`` how it is started.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import pytest

from snappy.error_codes import from_code
from snappy.jobs.messages import JobRecord
from snappy.jobs.states import State
from tests.support import source_site
from tests.support.disks import disk
from tests.support.source_site import SourceSite

MIB = 1 << 20
SMALL = 2 * MIB
LARGE = 48 * MIB
SLOW = "4M"
"""Bytes a second: what is large takes much longer than to see that it has begun."""
FULL_BYTES = 4 * MIB


class Refused(NamedTuple):
    """Options that must fail with an error of that code, and a hint."""

    about: str
    code: str
    options: dict[str, Any]
    kind: Literal["backup", "restore"] = "backup"


class Ground(Protocol):
    """A real server, or whatever a plug-in backs up, that runs for the tests of a file. All of it may block.

    ``other`` says which of two places is meant: the one that is backed up, or another of another name, to which the
    same can be restored.
    """

    plugin: str
    changes_share: float | None
    """Of what the first backup stored, the most that a second one may store after 1 % changed; None: not declared."""
    works_in_folder: bool
    """A backup keeps something as large as what is backed up in the service's work folder."""

    def settings(self) -> dict[str, dict[str, Any]]:
        """``[source.site.plugins.<plug-in>]``, by name; wrong ones that :meth:`refused` names among them."""

    def options(self) -> dict[str, Any]:
        """Of a backup."""

    def restore_options(self, other: bool) -> dict[str, Any]:
        """Of a restore to that place, where nothing stands."""

    def restore_into(self, folder: Path) -> dict[str, Any] | None:
        """Of a restore to files in that folder, for a disk that is full; None: it restores to no folder."""

    def fill(self, size: int) -> None:
        """Put in about so many bytes that hardly compress."""

    def change(self, share: float) -> None:
        """Change that share of them."""

    def writing(self) -> AbstractContextManager[Callable[[], int]]:
        """Write as fast as it goes, beside what is going on, to what a backup reads. The value says how many writes
        were done so far."""

    def wipe(self) -> None:
        """Leave nothing at either place, as the loss of it would."""

    def check(self, other: bool) -> None:
        """Raise ``AssertionError`` unless all that :meth:`fill` put in is there, and what was written beside it is as
        it was at one moment."""

    def content(self, other: bool) -> Any:
        """What is there, to be compared."""

    def leftovers(self) -> list[str]:
        """What a job left that it must not: snapshots, slots, locks, objects under temporary names."""

    def refused(self) -> Sequence[Refused]:
        """Wrong credentials, a server that is down, a database that there is not."""


class SourceContract:
    """Every source plug-in passes it. The quick half runs in CI, the rest is ``long``."""

    program: Sequence[str] = source_site.OURS
    """What the source service is, where it is not ours."""

    @pytest.fixture(autouse=True)
    def _emptied(self, ground: Ground) -> None:
        ground.wipe()

    def site(self, ground: Ground, folder: Path, **more: Any) -> AbstractAsyncContextManager[SourceSite]:
        return source_site.running(folder, ground.plugin, ground.settings(), program=self.program, **more)

    # ---- the quick half ----------------------------------------------------------------------------------------------

    async def test_what_is_written_to_is_backed_up_and_comes_back_as_it_was_at_one_moment(
        self, ground: Ground, tmp_path: Path
    ) -> None:
        await asyncio.to_thread(ground.fill, SMALL)
        async with self.site(ground, tmp_path) as site:
            with await asyncio.to_thread(_entered, ground.writing()) as written:
                before = written()
                made = await site.done("backup", options=ground.options(), init=True)
                assert written() > before, "nothing was written while it was backed up"
            assert made.result
            assert made.result.bytes_processed > SMALL // 2
            await asyncio.to_thread(ground.wipe)
            for other in (False, True):
                back = await site.done("restore", options=ground.restore_options(other))
                assert back.result
                assert back.result.bytes_processed == made.result.bytes_processed
                await asyncio.to_thread(ground.check, other)
            same = [await asyncio.to_thread(ground.content, other) for other in (False, True)]
            assert same[0] == same[1]
            await _nothing_left(ground, site)

    async def test_what_cannot_be_done_is_said_with_a_hint(self, ground: Ground, tmp_path: Path) -> None:
        await asyncio.to_thread(ground.fill, SMALL)
        async with self.site(ground, tmp_path) as site:
            await site.done("backup", options=ground.options(), init=True)
            for about, code, options, kind in ground.refused():
                _check_error(await site.ended(kind, options=options, attempts=1), code, about)
            await _nothing_left(ground, site)

    async def test_who_may_not_read_or_restore_that_is_refused(self, ground: Ground, tmp_path: Path) -> None:
        async with self.site(ground, tmp_path) as site:
            for kind, options in (("backup", ground.options()), ("restore", ground.restore_options(True))):
                _check_error(await site.ended(kind, submitter=source_site.STRANGER, options=options), "denied", kind)

    async def test_a_backup_that_is_cancelled_amid_it_leaves_nothing(self, ground: Ground, tmp_path: Path) -> None:
        await asyncio.to_thread(ground.fill, LARGE)
        async with self.site(ground, tmp_path) as site:
            job = await site.started("backup", options=ground.options(), init=True, bandwidth=SLOW)
            await site.amid(job)
            await site.client.cancel(job.id)
            record = await site.client.wait(job.id)
            assert record.state is State.CANCELLED, record
            await _nothing_left(ground, site)

    # ---- the rest ----------------------------------------------------------------------------------------------------

    @pytest.mark.long
    async def test_what_nobody_writes_to_comes_back_as_it_was_and_changes_move_little(
        self, ground: Ground, tmp_path: Path
    ) -> None:
        await asyncio.to_thread(ground.fill, LARGE)
        async with self.site(ground, tmp_path) as site:
            first = await site.done("backup", options=ground.options(), init=True)
            await asyncio.to_thread(ground.change, 0.01)
            second = await site.done("backup", options=ground.options())
            before = await asyncio.to_thread(ground.content, False)
            await asyncio.to_thread(ground.wipe)
            await site.done("restore", options=ground.restore_options(False))
        await asyncio.to_thread(ground.check, False)
        assert await asyncio.to_thread(ground.content, False) == before
        assert first.result
        assert second.result
        if ground.changes_share is not None:
            assert second.result.bytes_stored <= ground.changes_share * first.result.bytes_stored

    @pytest.mark.long
    async def test_a_backup_whose_service_is_killed_is_done_again_and_what_it_left_is_removed(
        self, ground: Ground, tmp_path: Path
    ) -> None:
        await asyncio.to_thread(ground.fill, LARGE)
        async with self.site(ground, tmp_path) as site:
            await site.throttle(SLOW)
            async with site.own_process() as process:
                job = await site.started("backup", options=ground.options(), init=True)
                await site.amid(job)
                process.kill()
            await site.throttle("")
            async with site.own_process():
                await site.attempted_again(job)
                await _nothing_left(ground, site)
                await asyncio.to_thread(ground.wipe)
                await site.done("restore", options=ground.restore_options(False))
        await asyncio.to_thread(ground.check, False)

    @pytest.mark.long
    async def test_a_restore_whose_service_is_killed_is_done_again_and_what_it_left_is_removed(
        self, ground: Ground, tmp_path: Path
    ) -> None:
        await asyncio.to_thread(ground.fill, LARGE)
        async with self.site(ground, tmp_path) as site:
            await site.done("backup", options=ground.options(), init=True)
            await site.throttle(SLOW)
            async with site.own_process() as process:
                job = await site.started("restore", options=ground.restore_options(True))
                await site.amid(job)
                process.kill()
            await site.throttle("")
            async with site.own_process():
                await site.attempted_again(job)
            await _nothing_left(ground, site)
        await asyncio.to_thread(ground.check, True)

    @pytest.mark.long
    async def test_a_restore_that_is_cancelled_amid_it_leaves_nothing(self, ground: Ground, tmp_path: Path) -> None:
        await asyncio.to_thread(ground.fill, LARGE)
        async with self.site(ground, tmp_path) as site:
            await site.done("backup", options=ground.options(), init=True)
            job = await site.started("restore", options=ground.restore_options(True), bandwidth=SLOW)
            await site.amid(job)
            await site.client.cancel(job.id)
            assert (await site.client.wait(job.id)).state is State.CANCELLED
            await site.done("restore", options=ground.restore_options(True))
            await _nothing_left(ground, site)
        await asyncio.to_thread(ground.check, True)

    @pytest.mark.long
    @pytest.mark.loop
    async def test_a_full_place_to_work_in_is_said(self, ground: Ground, tmp_path: Path) -> None:
        if not ground.works_in_folder:
            return
        await asyncio.to_thread(ground.fill, LARGE)
        with disk(tmp_path, FULL_BYTES) as full:
            async with self.site(ground, tmp_path, work=full.place) as site:
                _check_error(
                    await site.ended("backup", options=ground.options(), init=True, attempts=1), "no-space", "work"
                )
                await _nothing_left(ground, site)

    @pytest.mark.long
    @pytest.mark.loop
    async def test_a_full_place_to_restore_to_is_said(self, ground: Ground, tmp_path: Path) -> None:
        await asyncio.to_thread(ground.fill, LARGE)
        with disk(tmp_path, FULL_BYTES) as full:
            options = ground.restore_into(full.place / "back")
            if options is None:
                return
            async with self.site(ground, tmp_path) as site:
                await site.done("backup", options=ground.options(), init=True)
                _check_error(await site.ended("restore", options=options, attempts=1), "no-space", "restore")
                await _nothing_left(ground, site)


class _entered(AbstractContextManager[Any]):  # noqa: N801
    """A context that was entered in another thread, to be left in this one."""

    def __init__(self, context: AbstractContextManager[Any]) -> None:
        self._context, self._value = context, context.__enter__()

    def __enter__(self) -> Any:
        return self._value

    def __exit__(self, *raised: Any) -> bool | None:
        return self._context.__exit__(*raised)


def _check_error(record: JobRecord, code: str, about: str) -> None:
    assert record.error, f"{about}: {record}"
    assert record.error.code == code, f"{about}: {record.error}"
    assert record.error.hint or from_code(code, "").hint, f"{about}: {record.error}"


async def _nothing_left(ground: Ground, site: SourceSite) -> None:
    """A job is over a moment before the last of its cleaning is seen by others."""
    found: list[str] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            while found := [*await asyncio.to_thread(ground.leftovers), *site.leftovers()]:
                await asyncio.sleep(0.1)
    assert found == []
