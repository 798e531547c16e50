"""Runs as many tests as there is time for: ``--within SECONDS``. Others are drawn first after each commit.

So what takes long is run in the course of some commits, where there is not enough time for all of it after each one.
"""

import random
import subprocess
import time

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
    """Draw an order: the same one in each process of a run."""
    if config.getoption("within") is not None:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, check=False).stdout
        random.Random(commit).shuffle(items)
        _End.at = time.monotonic() + config.getoption("within")


class _End:
    at: float | None = None


def pytest_runtest_setup() -> None:
    """Skip what would begin too late."""
    if _End.at is not None and time.monotonic() > _End.at:
        pytest.skip("NOT RUN for lack of time")
