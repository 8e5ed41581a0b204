"""The drill of docs/recovery.md, its commands read from the page: a repository, a password, a restic, and no Snappy."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import fsspec
import pytest

from tests.support.compare import compare
from tests.support.stack import Shell
from tests.support.tools import ROOT
from tests.support.trees import make_tree
from tests.support.weed import weed_server

PAGE = (ROOT / "docs/recovery.md").read_text()
BLOCK = re.compile(r"<!-- drill: (\w+) -->\n```sh\n(.*?)```\n", re.DOTALL)
STEPS = ("look", "prove", "restore")


class Written(NamedTuple):
    """A repository that Snappy wrote of ``tree``, and what stands in the page for its place and credentials."""

    tree: Path
    block: str
    stands_for: dict[str, str]


def test_all_blocks_are_tried() -> None:
    assert [name for name, _ in BLOCK.findall(PAGE)] == ["folder", "s3", *STEPS]
    assert PAGE.count("```sh") == len(BLOCK.findall(PAGE))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("source") / "tree"
    make_tree(made, (0, 14, 0))
    return made


@pytest.fixture(scope="module")
def in_folder(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Written:
    shell = Shell(tmp_path_factory.mktemp("folder"))
    shell.with_password("backup", tree, "--to", "./repo", "--init").expect(0)
    return Written(tree, "folder", {"/mnt/backup": f"{shell.folder}/repo", **_password(shell)})


@pytest.fixture(scope="module")
def in_bucket(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    with weed_server(tmp_path_factory.mktemp("weed")) as weed:
        keys = {"your-access-key": weed.access_key, "your-secret-key": weed.secret_key}
        fsspec.filesystem("s3", skip_instance_cache=True, **weed.options).makedirs("bucket")
        environ = {"AWS_ENDPOINT_URL": weed.endpoint}
        environ |= {"AWS_ACCESS_KEY_ID": weed.access_key, "AWS_SECRET_ACCESS_KEY": weed.secret_key}
        shell = Shell(tmp_path_factory.mktemp("s3"), environ=environ)
        shell.with_password("backup", tree, "--to", "s3://bucket/prefix", "--init").expect(0)
        yield Written(tree, "s3", {"https://s3.example.org": weed.endpoint, **keys, **_password(shell)})


def _password(shell: Shell) -> dict[str, str]:
    return {"/root/repository.password": str(shell.password_file)}


def drill(written: Written, restic: str, folder: Path) -> None:
    """Carry out the page's commands where ``restic`` is the only program of that name, and nothing of Snappy is set."""
    (folder / "bin").mkdir()
    (folder / "bin" / "restic").symlink_to(restic)
    environ = {"PATH": f"{folder}/bin:{os.defpath}", "HOME": str(folder)}
    blocks = dict(BLOCK.findall(PAGE))
    script = "set -eu\n" + "".join(blocks[name] for name in (written.block, *STEPS))
    for text, value in {**written.stands_for, "/srv/recovered": f"{folder}/recovered"}.items():
        assert text in script
        script = script.replace(text, value)
    done = subprocess.run(["sh", "-c", script], env=environ, cwd=folder, capture_output=True, timeout=300, check=False)
    said = (done.stdout + done.stderr).decode(errors="backslashreplace")
    assert done.returncode == 0, said
    assert "no errors were found" in said
    found = compare(written.tree, Path(f"{folder}/recovered{written.tree}"))
    assert found.same, found.differences
    assert found.files > 1000


def test_of_a_folder(in_folder: Written, restic_program: str, tmp_path: Path) -> None:
    drill(in_folder, restic_program, tmp_path)


@pytest.mark.s3
def test_of_an_object_store(in_bucket: Written, restic_program: str, tmp_path: Path) -> None:
    drill(in_bucket, restic_program, tmp_path)
