"""``python -m snappy.schemas [--check] [FOLDER]``: writes ``schemas/``, or says what is stale there."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from snappy.schemas import asyncapi, structs

FOLDER = Path("schemas")


def texts() -> dict[str, str]:
    """What the folder should hold: file name to text."""
    documents = {"asyncapi.json": asyncapi.document(), **structs.documents()}
    return {name: json.dumps(document, indent=2) + "\n" for name, document in documents.items()}


def present(folder: Path) -> dict[str, str]:
    """What the folder holds."""
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.json")}


def stale(folder: Path) -> list[str]:
    """The names of files that are missing, different or no longer made."""
    wanted, found = texts(), present(folder)
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def write(folder: Path) -> None:
    for name in present(folder).keys() - texts().keys():
        (folder / name).unlink()
    for name, text in texts().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m snappy.schemas", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if something is stale")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, metavar="FOLDER")
    options = parser.parse_args(arguments)
    if not options.check:
        write(options.folder)
        return 0
    names = stale(options.folder)
    print("\n".join(f"stale: {name} (run `make schemas`)" for name in names) or "schemas are fresh")
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())
