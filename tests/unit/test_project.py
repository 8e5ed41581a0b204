"""What no linter looks at: every module has its floor, nothing outgrows its size, no address slips in."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import msgspec
import pytest

from snappy import config, error_codes

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MODULES = sorted((ROOT / "snappy").rglob("*.py"))
PAGES = sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))
LONGEST_FILE, LONGEST_FUNCTION = 400, 60
INSTALLER_FILES = ["constraints.txt", "Makefile", ".ci/run", "scripts/services.sh", "tests/support/node/package.json"]
INSTALLER_FILES += ["tests/support/node/package-lock.json"]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def floors() -> list[str]:
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["id"] == "floors")
    return [name for layer in layers for name in re.findall(r"[\w.]+", layer)]


@pytest.mark.parametrize("path", [path for path in MODULES if path.name != "__init__.py"], ids=module_name)
def test_every_module_has_its_floor(path: Path) -> None:
    name = module_name(path)
    assert any(name == floor or name.startswith(f"{floor}.") for floor in floors()), "add it to [tool.importlinter]"


@pytest.mark.parametrize("name", floors())
def test_every_floor_is_a_module(name: str) -> None:
    place = ROOT / name.replace(".", "/")
    assert place.with_suffix(".py").exists() or (place / "__init__.py").exists()


def functions(text: str) -> dict[str, int]:
    """The lengths of all functions, in lines."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    return {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in found}


SIZES = [(path.read_text().count("\n"), functions(path.read_text())) for path in MODULES]
"""Taken while tests are collected: Python 3.11 cannot parse beside threads that other tests have left."""


@pytest.mark.parametrize(("lines", "lengths"), SIZES, ids=[module_name(path) for path in MODULES])
def test_nothing_outgrows_its_size(lines: int, lengths: dict[str, int]) -> None:
    assert lines <= LONGEST_FILE
    assert [name for name, length in lengths.items() if length >= LONGEST_FUNCTION] == []


@pytest.mark.parametrize("name", INSTALLER_FILES)
def test_no_address_stands_in_what_installs(name: str) -> None:
    assert not re.search(r"https?://|[\w-]+\.(?:org|com|io)\b", (ROOT / name).read_text())


def test_constraints_name_exact_versions() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[\w.+!]+", line)] == []


def test_every_dependency_has_a_constraint() -> None:
    project = PROJECT["project"]
    wanted = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    assert [name for name in wanted if re.split(r"[><=\[ ]", name)[0].lower() not in pinned] == []


def test_importing_the_package_imports_nothing() -> None:
    """``fsspec.compression`` imports whatever is called snappy, so it must be cheap and free of cycles."""
    code = "import sys; before = set(sys.modules); import snappy; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['snappy']"


def test_entry_points_lead_somewhere() -> None:
    for group in ("console_scripts", "snappy.sources", "fsspec.specs"):
        found = [entry for entry in entry_points(group=group) if entry.value.startswith("snappy.")]
        assert found, group
        for entry in found:
            if group == "fsspec.specs":
                module, _, name = entry.value.rpartition(".")
                assert hasattr(__import__(module, fromlist=[name]), name)
            else:
                assert entry.load()


def test_the_table_of_exit_codes_is_fresh() -> None:
    table = (ROOT / "docs" / "exit-codes.md").read_text()
    for kind in error_codes.BY_CODE.values():
        meaning = (kind.__doc__ or "").splitlines()[0]
        row = f"| {kind.exit_code} | `{kind.code}` | {'yes' if kind.retryable else ''} | {meaning} |"
        assert row in table, row


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *PAGES])
def test_links_between_pages_lead_somewhere(page: str) -> None:
    path = ROOT / page
    links = re.findall(r"\]\(([^)#]+)", path.read_text())
    assert [link for link in links if "://" not in link and not (path.parent / link).exists()] == []


def test_the_example_of_a_configuration_is_one_and_names_every_key() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "configuration.md").read_text(), flags=re.DOTALL)
    settings = msgspec.convert(tomllib.loads(example), config.Config)
    assert settings.core
    assert settings.source["site1"].allow["alice"].targets == ["vault"]
    core = (config.Core, config.Deletion, config.Promise, config.Limits)
    services = (config.Audit, config.Allow, config.SourceService, config.TargetService)
    for section in (config.Config, config.Nats, *core, *services):
        missing = [name for name in section.__struct_fields__ if not re.search(rf"\b{name}\b", example)]
        assert missing == [], section.__name__
