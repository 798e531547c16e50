"""Runs as many tests as there is time for: ``--within SECONDS``. Others are drawn first after each commit.

So what there is no time for after each commit is run in the course of some: what takes long, and other Pythons.
"""

import random
import subprocess
import time
from itertools import groupby

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(
        "--within",
        type=float,
        metavar="SECONDS",
        help="begin no test after that; the order depends on the commit",
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Draw an order of files, whose tests share fixtures: the same one in each process of a run."""
    if config.getoption("within") is not None:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, check=False).stdout
        files = [list(tests) for _, tests in groupby(items, key=lambda item: item.path)]
        random.Random(commit).shuffle(files)
        items[:] = [item for tests in files for item in tests]
        _End.at = time.monotonic() + config.getoption("within")


class _End:
    at: float | None = None


def pytest_runtest_setup() -> None:
    """Skip what would begin too late."""
    if _End.at is not None and time.monotonic() > _End.at:
        pytest.skip("NOT RUN for lack of time")
