"""The protocol of a source plug-in, and the registry that finds plug-ins by name.

A plug-in is a class in the entry-point group ``snappy.sources``::

    class Files:
        name = "files"
        Options = FilesOptions            # of a backup
        RestoreOptions = FilesRestore     # of a restore

        def __init__(self, options: FilesOptions, site: Site) -> None: ...
        def claims(self) -> list[str]: ...
        def snap(self) -> AsyncContextManager[Frozen]: ...
        def export(self, frozen: Frozen) -> Iterator[Entry]: ...
        @classmethod
        def restore_claims(cls, options: FilesRestore, site: Site) -> list[str]: ...
        @classmethod
        def import_(cls, options: FilesRestore, claims: Sequence[str], site: Site) -> Sink: ...

What a plug-in must be told but no job may say (where a server is, its credentials, a program's arguments) stands in the
source service's configuration, ``[source.<service>.plugins.<plug-in>.<name>]``, which the plug-in's ``Settings``
describes. A job says the name.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Protocol, runtime_checkable

import msgspec

from snappy.decoding import converted
from snappy.errors import BadOptions, SourceError, UnknownPlugin
from snappy.repository.entries import Exported, Passed, Recipe, Sink, StreamSink
from snappy.sources.site import Site

GROUP = "snappy.sources"


class Source(Protocol):
    """A kind of thing that can be backed up and restored. ``snap`` and construction run on the event loop;
    ``export`` and the sink run in a worker thread and may block. The options are frozen structs that refuse unknown
    fields (``forbid_unknown_fields=True``), so that they validate and document themselves."""

    name: ClassVar[str]
    Options: ClassVar[type[msgspec.Struct]]
    RestoreOptions: ClassVar[type[msgspec.Struct]]

    def __init__(self, options: Any, site: Site) -> None: ...

    def claims(self) -> list[str]:
        """What the backup reads, as absolute paths or URLs: compared with what the submitter may read, and written
        into the snapshot as its paths."""

    def snap(self) -> AbstractAsyncContextManager[Any]:
        """Freeze the source; leaving the context always thaws it. Its value is passed to :meth:`export`.

        Raises :class:`snappy.errors.SourceMissing` when what is asked for does not exist.
        """

    def export(self, frozen: Any) -> Iterator[Exported]:
        """Yield the entries, in the order that :class:`snappy.repository.entries.Entry` demands."""

    @classmethod
    def restore_claims(cls, options: Any, site: Site) -> list[str]:
        """The places the restore writes to, as absolute paths or URLs."""

    @classmethod
    def import_(cls, options: Any, claims: Sequence[str], site: Site) -> Sink | StreamSink:
        """Open the place to restore to. ``claims`` are what :meth:`restore_claims` said and the rules let through: no
        symlink in them may be followed, for somebody may have put it there since."""


@runtime_checkable
class Configured(Protocol):
    """A plug-in with settings at the service. They are frozen structs that refuse unknown fields."""

    Settings: ClassVar[type[msgspec.Struct]]


@runtime_checkable
class Interruptible(Protocol):
    """A source, or the sink of a restore, that may wait long for something: a server, a program."""

    def interrupt(self) -> None:
        """The attempt is over: end all waiting, so that it can be cleaned up. Comes once, from any thread, and must
        not block; what ``export`` or the sink raises then is of no interest."""


@runtime_checkable
class Measurable(Protocol):
    """A source that can say beforehand how much there is, so that who watches a backup knows how long it takes."""

    def sizes(self, frozen: Any) -> Iterator[int]:
        """The size of each file that :meth:`Source.export` will yield, in bytes, roughly. It runs beside ``export``
        in a thread of its own, and is closed early when the backup is over."""


@runtime_checkable
class Divisible(Protocol):
    """A source that another process can go through from the end while this one begins, so that both are sooner done."""

    def backwards(self, frozen: Any) -> Recipe | None:
        """What makes, in another process, the entries in the opposite order: a directory still before what is in it,
        but siblings by their names downwards. None where there is no such thing."""

    def export_rest(self, frozen: Any, passed: Passed) -> Iterator[Exported]:
        """As :meth:`Source.export`, without what lies below the directories that are ``passed``."""


@runtime_checkable
class Dependent(Protocol):
    """A plug-in that needs more than comes with it: programs, modules, rights."""

    @classmethod
    def missing(cls) -> list[str]:
        """What this machine lacks for it, a sentence each with what to do."""


def end(entries: Iterator[Exported]) -> None:
    """No more of them are wanted. A walk that is given up has folders open, so that nobody can unmount what they lie
    in; an error that came amid it may refer to it for as long as nobody looks for cycles."""
    if isinstance(entries, Generator):
        entries.close()


def missing_of(plugin: type[Source]) -> list[str]:
    """What this machine lacks for a plug-in; nothing where it needs nothing."""
    return plugin.missing() if isinstance(plugin, Dependent) else []


def settings_of(plugin: type[Source]) -> type[msgspec.Struct] | None:
    """What describes its settings at the service, if it has any."""
    return plugin.Settings if isinstance(plugin, Configured) else None


def schemas_of(plugin: type[Source]) -> dict[str, Any]:
    """The JSON schemas of its options and its settings, by what they are of."""
    settings = settings_of(plugin)
    found = {"backup": plugin.Options, "restore": plugin.RestoreOptions} | ({"settings": settings} if settings else {})
    return {of: msgspec.json.schema(struct) for of, struct in found.items()}


def entries() -> list[EntryPoint]:
    """All installed plug-ins, sorted by name."""
    return sorted(entry_points(group=GROUP), key=lambda entry: entry.name)


def names() -> list[str]:
    """The names of all installed plug-ins, sorted."""
    return [entry.name for entry in entries()]


def load(name: str) -> type[Source]:
    """The plug-in of that name. Raises :class:`UnknownPlugin`, and :class:`SourceError` for one that is broken."""
    for entry in entry_points(group=GROUP, name=name):
        return _loaded(name, entry)
    raise UnknownPlugin(f"no source plug-in is named {name!r}", hint=f"installed are: {', '.join(names())}")


def _loaded(name: str, entry: EntryPoint) -> type[Source]:
    """What others wrote may fail in any way when it is imported."""
    try:
        found: type[Source] = entry.load()
    except Exception as error:
        raise SourceError(
            f"the plug-in {name} cannot be loaded from {entry.value}: {type(error).__name__}: {error}",
            hint="reinstall the package that brings it, or remove that package",
        ) from error
    return found


def parse(schema: type[msgspec.Struct], options: dict[str, Any]) -> Any:
    """Validate ``options`` against a plug-in's struct. Raises :class:`BadOptions` with the path of the fault."""
    try:
        return converted(options, schema)
    except msgspec.ValidationError as error:
        raise BadOptions(str(error)) from error
