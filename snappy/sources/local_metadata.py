"""Sets a restored object's owner, extended attributes, mode and times, in the order in which none undoes another:
a change of owner clears setuid bits and capabilities, a read-only mode forbids attributes, and all of them move times.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from snappy.repository.entries import Node

SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID

Target = int | str
"""A descriptor, or a path under ``/proc/self/fd`` that stands for one."""


Owner = Callable[[Node], tuple[int, int]]
"""Which user and group an object is to have here."""


def by_number(node: Node) -> tuple[int, int]:
    """Those of the same numbers, as restic does."""
    return node.uid, node.gid


def by_name(node: Node) -> tuple[int, int]:
    """Those of the same names; where this machine has none of that name, the number."""
    user, group = _user_of(node.user), _group_of(node.group)
    return node.uid if user is None else user, node.gid if group is None else group


@lru_cache(maxsize=4096)
def _user_of(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid if name else None
    except KeyError:
        return None


@lru_cache(maxsize=4096)
def _group_of(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid if name else None
    except KeyError:
        return None


def apply(target: Target, node: Node, found: os.stat_result, *, owner: Owner | None) -> list[str]:
    """Give the object, which is as ``found``, what ``node`` says, and the ``owner`` if one is to be set. What is right
    already is not set again. Returns what failed, a sentence each."""
    failures: list[str] = []
    there = found.st_uid, found.st_gid
    wanted = owner(node) if owner else there
    owned = wanted == there or _try(failures, "its owner", os.chown, target, *wanted)
    _try(failures, "its extended attributes", _set_xattrs, target, node.xattrs)
    mode = node.mode if owned else node.mode & ~SPECIAL_BITS
    if node.type != "symlink" and not _has_mode(target, mode, found):
        _try(failures, "its mode", os.chmod, target, mode)
    if (found.st_atime_ns, found.st_mtime_ns) != (node.atime_ns, node.mtime_ns):
        _try(failures, "its times", _set_times, target, node)
    return failures


def _has_mode(target: Target, mode: int, before: os.stat_result) -> bool:
    """Owner and attributes may have changed what was right ``before``."""
    return stat.S_IMODE(before.st_mode) == mode == stat.S_IMODE(os.stat(target).st_mode)


def _try(failures: list[str], what: str, action: Callable[..., None], *arguments: Any) -> bool:
    try:
        action(*arguments)
    except (OSError, OverflowError) as error:
        failures.append(f"{what} cannot be set: {getattr(error, 'strerror', None) or error}")
        return False
    return True


def _set_times(target: Target, node: Node) -> None:
    os.utime(target, ns=(node.atime_ns, node.mtime_ns))


def _set_xattrs(target: Target, wanted: dict[bytes, bytes]) -> None:
    """Set all that are wanted, and remove others, such as an access list inherited from the directory. What the
    kernel's security modules put on every file stays."""
    for name in _xattr_names(target):
        if name not in wanted and not name.startswith(b"security."):
            os.removexattr(target, name)
    for name, value in wanted.items():
        os.setxattr(target, name, value)


def _xattr_names(target: Target) -> list[bytes]:
    try:
        return [os.fsencode(name) for name in os.listxattr(target)]
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise
