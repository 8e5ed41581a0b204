"""Sets a restored object's owner, extended attributes, mode and times, in the order in which none undoes another:
a change of owner clears setuid bits and capabilities, a read-only mode forbids attributes, and all of them move times.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from snappy.repository.entries import Node

SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID

Target = int | str
"""A descriptor, or a path under ``/proc/self/fd`` that stands for one."""


def apply(target: Target, node: Node, *, owners: bool) -> list[str]:
    """Give the object what ``node`` says. Returns what failed, a sentence each."""
    failures: list[str] = []
    owned = not owners or _try(failures, "its owner", lambda: os.chown(target, node.uid, node.gid))
    _try(failures, "its extended attributes", lambda: _set_xattrs(target, node.xattrs))
    if node.type != "symlink":
        mode = node.mode if owned else node.mode & ~SPECIAL_BITS
        _try(failures, "its mode", lambda: os.chmod(target, mode))
    _try(failures, "its times", lambda: os.utime(target, ns=(node.atime_ns, node.mtime_ns)))
    return failures


def _try(failures: list[str], what: str, action: Callable[[], None]) -> bool:
    try:
        action()
    except (OSError, OverflowError) as error:
        failures.append(f"{what} cannot be set: {getattr(error, 'strerror', None) or error}")
        return False
    return True


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
