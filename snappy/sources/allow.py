"""What a job may ask of a source service: the rules of ``[source.<name>.allow.<submitter>]``.

A rule that is not written allows nothing. Places are compared part by part, never letter by letter (``/srv/a`` does
not allow ``/srv/ab``). Local places are compared after every symlink on the way was followed, on both sides, at the
time the job is claimed; a place that does not exist yet counts as the one its nearest existing parent leads to.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from urllib.parse import unquote

import msgspec

from snappy.config import Allow
from snappy.errors import Denied

ALL = "*"
EVERYTHING = Allow(kinds=[ALL], plugins=[ALL], targets=[ALL], read=[ALL], restore_to=[ALL], hooks=[ALL])
"""For the embedded stack, where who asks is who runs it."""
NOTHING = Allow()


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What a job asks: ``reads`` and ``writes`` are absolute paths or URLs."""

    kind: str
    target: str
    others: list[str] = []
    """Further targets: the one of which a copy is made, or those that keep a backup too."""
    plugin: str = ""
    beside: list[str] = []
    """Further plug-ins of the same backup."""
    hooks: list[str] = []
    reads: list[str] = []
    writes: list[str] = []


def rules_for(submitter: str, rules: Mapping[str, Allow], scratch: str = "") -> Allow:
    """The rules for one submitter: its own, else those for ``*``, else none; ``scratch`` is open to all of them."""
    found = rules.get(submitter) or rules.get(ALL) or NOTHING
    return msgspec.structs.replace(found, restore_to=[*found.restore_to, scratch]) if scratch else found


def check(ask: Ask, allowed: Allow, submitter: str) -> None:
    """Raises :class:`Denied`, which names what was asked, unless ``allowed`` holds all of it."""
    _listed("kind", [ask.kind], allowed.kinds, submitter)
    _listed("target", [ask.target, *ask.others], allowed.targets, submitter)
    if ask.plugin:
        _listed("plug-in", [ask.plugin, *ask.beside], allowed.plugins, submitter)
    _listed("hook", ask.hooks, allowed.hooks, submitter)
    _within("read", ask.reads, allowed.read, submitter)
    _within("restore to", ask.writes, allowed.restore_to, submitter)


def _listed(what: str, asked: Iterable[str], allowed: list[str], submitter: str) -> None:
    for one in asked:
        if one not in allowed and ALL not in allowed:
            raise Denied(f"{submitter} may not ask for the {what} {one!r} here")


def _within(verb: str, asked: Iterable[str], allowed: list[str], submitter: str) -> None:
    if ALL in allowed:
        return
    places = {parts(place) for place in allowed}
    names = places | {parts(place, follow=False) for place in allowed}
    for one in asked:
        # As it is written too: a symlink that leads inside now may have led, or be made to lead, elsewhere.
        if not (_is_in(parts(one), places) and _is_in(parts(one, follow=False), names)):
            raise Denied(f"{submitter} may not {verb} {one!r} here")


def _is_in(wanted: tuple[str, ...], places: Iterable[tuple[str, ...]]) -> bool:
    return any(wanted[: len(place)] == place for place in places)


def parts(place: str, *, follow: bool = True) -> tuple[str, ...]:
    """A place as comparable parts: a path (without symlinks, where they are followed), or a URL's protocol, host and
    folders.

    Raises :class:`Denied` for a relative path, and for a URL with ``..`` or chained by ``::``: it may lead elsewhere.
    """
    protocol, found, rest = place.partition("://")
    if found and protocol not in ("file", "local"):
        return (f"{protocol.lower()}:", *_url_parts(place, rest))
    path = rest if found else place
    if not path.startswith("/") or "\0" in path:
        raise Denied(f"{place!r} is no absolute path")
    plain = os.path.realpath(path) if follow else os.path.normpath(path)
    return ("/", *filter(None, plain.split("/")))


def _url_parts(place: str, rest: str) -> list[str]:
    found = [part for part in rest.split("/") if part not in ("", ".")]
    if ".." in found or ".." in unquote(rest).split("/") or "::" in place:
        raise Denied(f"{place!r} holds '..' or '::'")
    return found
