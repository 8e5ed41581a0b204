"""``snappy mount``."""

from __future__ import annotations

import argparse

from snappy.cli import options, output


def register(commands: options.Commands) -> None:
    """Add the command."""
    mount = options.command(
        commands, "mount", "show a repository as a folder, until Ctrl-C (with snappy-backup[mount])"
    )
    mount.add_argument("folder", metavar="FOLDER", help="an empty folder")
    options.browsing(mount)
    mount.add_argument("--allow-other", action="store_true", help="other users may look, by the snapshot's permissions")
    mount.add_argument("--owner-root", action="store_true", help="all belongs to root")
    mount.set_defaults(run=_mount)


def _mount(arguments: argparse.Namespace) -> int:
    from snappy.browse import mounting
    from snappy.cli import browsing

    with browsing.opened(arguments) as view:
        shown = mounting.Mount(view, lambda: browsing.chosen(view, arguments), owner_root=arguments.owner_root)
        output.note(
            f"{arguments.place} is at {arguments.folder}, read-only, until Ctrl-C or `umount {arguments.folder}`"
        )
        mounting.mount(shown, arguments.folder, name=f"snappy:{arguments.place}", allow_other=arguments.allow_other)
    return 0
