"""What a source service gives its plug-ins and drills: their settings, and a folder to work in."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from snappy import log
from snappy.config import DrillProgram, Hook
from snappy.decoding import converted
from snappy.errors import BadOptions, SourceError, UsageError

LOCK = ".lock"
OURS = "snappy-"
"""Begins the names of work folders: an operator may have named a folder that holds something else, too."""

_log = log.get(__name__)


class Site:
    """One for a service. ``plugins`` is what its configuration says (see :mod:`snappy.sources.base`), ``work`` the
    folder below which plug-ins keep what they need while they run (empty: there is none), ``drills`` are the programs
    that a drill may run, ``hooks`` what jobs may choose to have around a backup."""

    def __init__(
        self,
        name: str = "",
        plugins: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
        work: str = "",
        drills: Mapping[str, DrillProgram] | None = None,
        hooks: Mapping[str, Hook] | None = None,
    ) -> None:
        self.name = name
        self._plugins, self._work, self._drills = plugins or {}, work, drills or {}
        self._hooks = hooks or {}

    def names(self, plugin: str) -> list[str]:
        """The names that jobs may use with that plug-in, sorted."""
        return sorted(self._plugins.get(plugin, {}))

    def settings(self, plugin: str, schema: type[msgspec.Struct], name: str) -> Any:
        """What the plug-in was configured with under that name. Raises :class:`BadOptions` for a name that there is
        not."""
        found = self._plugins.get(plugin, {}).get(name)
        if found is None:
            known = ", ".join(self.names(plugin)) or "none"
            raise BadOptions(
                f"the source service has no {plugin} named {name!r}",
                hint=f"it has: {known}; see [source.{self.name}.plugins.{plugin}.{name}] in docs/plugins.md",
            )
        return converted(found, schema)

    def drill_program(self, name: str) -> DrillProgram:
        """Raises :class:`BadOptions` for a name that there is not."""
        if name not in self._drills:
            raise BadOptions(
                f"the source service has no drill program {name!r}",
                hint=f"it has: {', '.join(sorted(self._drills)) or 'none'}; see docs/drills.md",
            )
        return self._drills[name]

    def hook(self, name: str) -> Hook:
        """Raises :class:`BadOptions` for a name that there is not."""
        if name not in self._hooks:
            raise BadOptions(
                f"the source service has no hook {name!r}",
                hint=f"it has: {', '.join(sorted(self._hooks)) or 'none'}; see docs/hooks.md",
            )
        return self._hooks[name]

    def check(self, plugin: str, schema: type[msgspec.Struct] | None) -> None:
        """Raise :class:`UsageError` for settings that the plug-in would not understand."""
        for name, given in self._plugins.get(plugin, {}).items():
            where = f"source.{self.name}.plugins.{plugin}.{name}"
            if schema is None:
                raise UsageError(f"{where}: the plug-in {plugin} has no settings")
            try:
                converted(given, schema)
            except msgspec.ValidationError as error:
                raise UsageError(f"{where}: {error}", hint=f"`snappy plugins show {plugin}` lists them") from error

    def kept_file(self, plugin: str, name: str) -> Path:
        """Where a plug-in may keep something small from job to job; what it cannot make anew may be lost."""
        return Path(self._work) / plugin / f"{name}.kept"

    @contextmanager
    def work_folder(self, plugin: str) -> Iterator[Path]:
        """A new folder of mode 0700, which is gone afterwards. Those of dead processes are removed first. Raises
        :class:`SourceError` where none can be made."""
        above = self._above(plugin)
        try:
            above.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder, lock = _new_folder(above)
        except OSError as error:
            raise SourceError(f"no folder to work in can be made below {above}: {error.strerror}") from error
        try:
            yield folder
        finally:
            _remove(folder)
            os.close(lock)

    @contextmanager
    def alone(self, plugin: str) -> Iterator[None]:
        """No other process of this service is there with that plug-in. Raises :class:`SourceError`."""
        above = self._above(plugin)
        try:
            above.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = _open_lock(above)
        except OSError as error:
            raise SourceError(f"no folder to work in can be made: {above}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def tidy(self, plugin: str) -> None:
        """Remove the work folders of dead processes, if there are any."""
        above = self._above(plugin)
        if above.is_dir():
            try:
                with _making(above):
                    _remove_left(above)
            except OSError as error:
                _log.warning("what dead processes left cannot be removed", plugin=plugin, reason=error.strerror)

    def _above(self, plugin: str) -> Path:
        return Path(self._work) / plugin


NOWHERE = Site()
"""For plug-ins that need nothing of a service."""


def _new_folder(above: Path) -> tuple[Path, int]:
    """With the lock on it that tells it from those of the dead."""
    with _making(above):
        _remove_left(above)
        folder = Path(tempfile.mkdtemp(prefix=OURS, dir=above))
        lock = _open_lock(folder)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return folder, lock


@contextmanager
def _making(above: Path) -> Iterator[None]:
    """Nobody else makes or removes a folder there meanwhile."""
    making = _open_lock(above)
    try:
        fcntl.flock(making, fcntl.LOCK_EX)
        yield
    finally:
        os.close(making)


def _remove_left(above: Path) -> None:
    for folder in filter(Path.is_dir, above.glob(f"{OURS}*")):
        try:
            lock = _open_lock(folder)
        except FileNotFoundError:
            continue  # another job came to its end
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(folder)
            _log.info("removed what a dead process left", folder=str(folder))
        except BlockingIOError:
            _log.debug("another job works there", folder=str(folder))
        finally:
            os.close(lock)


def _remove(folder: Path) -> None:
    """With directories that came out of a backup and may not be written, where we are not root."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        for above, names, _ in os.walk(folder):
            for name in (name for name in names if not os.path.islink(os.path.join(above, name))):
                with suppress(OSError):
                    os.chmod(os.path.join(above, name), 0o700)
        shutil.rmtree(folder, ignore_errors=True)


def _open_lock(folder: Path) -> int:
    return os.open(folder / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
