"""What a source service gives its plug-ins: their settings, and a folder to work in."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from snappy import log
from snappy.decoding import converted
from snappy.errors import BadOptions, SourceError, UsageError

LOCK = ".lock"

_log = log.get(__name__)


class Site:
    """One for a service. ``plugins`` is what its configuration says (see :mod:`snappy.sources.base`), ``work`` the
    folder below which plug-ins keep what they need while they run; empty: there is none."""

    def __init__(
        self, name: str = "", plugins: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None, work: str = ""
    ) -> None:
        self.name = name
        self._plugins, self._work = plugins or {}, work

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

    @contextmanager
    def work_folder(self, plugin: str) -> Iterator[Path]:
        """A new folder of mode 0700, which is gone afterwards. Those of dead processes are removed first. Raises
        :class:`SourceError` where none can be made."""
        above = Path(self._work) / plugin
        try:
            above.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder, lock = _new_folder(above)
        except OSError as error:
            raise SourceError(f"no folder to work in can be made below {above}: {error.strerror}") from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


NOWHERE = Site()
"""For plug-ins that need nothing of a service."""


def _new_folder(above: Path) -> tuple[Path, int]:
    """With the lock on it that tells it from those of the dead."""
    making = _open_lock(above)
    try:
        fcntl.flock(making, fcntl.LOCK_EX)
        _remove_left(above)
        folder = Path(tempfile.mkdtemp(dir=above))
        lock = _open_lock(folder)
        fcntl.flock(lock, fcntl.LOCK_EX)
    finally:
        os.close(making)
    return folder, lock


def _remove_left(above: Path) -> None:
    for folder in filter(Path.is_dir, above.iterdir()):
        lock = _open_lock(folder)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
            _log.info("removed what a dead process left", folder=str(folder))
        except BlockingIOError:
            _log.debug("another job works there", folder=str(folder))
        finally:
            os.close(lock)


def _open_lock(folder: Path) -> int:
    return os.open(folder / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
