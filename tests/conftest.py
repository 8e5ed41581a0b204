"""For all tests: leaves out what this machine cannot run (and says so), and adds up what each folder of tests took.

With ``-n`` (pytest-xdist) tests are chosen in worker processes, and what is said at the end is said by another one.
"""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import hypothesis
import pytest
import structlog

from snappy.repository import configuration, key_ring
from snappy.repository.keys import DEFAULT_COST, create_key
from tests.support import tools
from tests.support.engine import CHEAP

pytest.register_assert_rewrite("tests.support.source_contract", "tests.support.source_site")

LEFT_OUT = pytest.StashKey[list[str]]()
SECONDS: Counter[str] = Counter()

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("snappy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("snappy")

# Clients that tests drop let go of their sockets too: another test would be told of one that is not closed.
fsspec.register_implementation("s3", "snappy.targets.s3_session.S3", clobber=True)


def pytest_configure() -> None:
    if os.environ.get("SNAPPY_CI") and (lacking := tools.installable(tools.absent())):
        raise pytest.UsageError("\n".join(lacking))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    lacking = tools.absent()
    kept, left_out = tools.split(items, lacking)
    config.stash[LEFT_OUT] = tools.report(left_out, lacking)
    getattr(config, "workeroutput", {})["left_out"] = config.stash[LEFT_OUT]
    gone = [item for item in items if item not in set(kept)]
    if gone:
        config.hook.pytest_deselected(items=gone)
        items[:] = kept


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """A failure is shown with the help of ``ast.parse``. In Python 3.11 a garbage collection amid that, whose
    finalizers let others parse too, is a SystemError (python/cpython#106905), and the whole run ends with it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """All worker processes leave out the same; one that crashed says nothing."""
    if lines := getattr(node, "workeroutput", {}).get("left_out"):
        node.config.stash[LEFT_OUT] = lines


@pytest.fixture(scope="session", autouse=True)
def _keys_without_a_cost() -> Iterator[None]:
    """A key that this process makes takes a second less to be made and opened, by restic as well, unless a test says
    what it is to cost. What other processes make has the real cost."""

    def cheap(*given: Any, cost: Any, **more: Any) -> Any:
        return create_key(*given, cost=CHEAP if cost == DEFAULT_COST else cost, **more)

    with pytest.MonkeyPatch.context() as patch:
        for module in (configuration, key_ring):
            patch.setattr(module, "create_key", cheap)
        yield


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """What one test says of logging is not said to the next: its standard error is closed by then. By default a
    traceback is drawn with all that its functions held, megabytes of packs among them, while the event loop waits."""
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], plain])
    yield
    structlog.reset_defaults()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    folder = Path(report.nodeid.split("::")[0]).parts[1]
    SECONDS[folder] += report.duration


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash.get(LEFT_OUT, []):
        terminalreporter.write_line(line)
    for folder, seconds in sorted(SECONDS.items()):
        terminalreporter.write_line(f"{folder:<12} {seconds:6.1f} s")
