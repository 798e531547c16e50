"""The deployment's files as data. Knows no service's meaning."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.faults.conftest import postgres_proxy  # noqa: F401 - a fixture

Compose = dict[str, Any]
Steps = list[tuple[str, str]]
"""A Dockerfile's instructions in order, each with its text in one line."""


@pytest.fixture(scope="session")
def root() -> Path:
    """Say where the project is."""
    return Path(__file__).parents[2]


@pytest.fixture(scope="session")
def compose(root: Path) -> Compose:
    """Read docker-compose.yml, its merge keys resolved."""
    content: Compose = yaml.safe_load((root / "docker-compose.yml").read_text())
    return content


@pytest.fixture(scope="session")
def dockerfile(root: Path) -> Steps:
    """Read the Dockerfile."""
    lines = [line for line in (root / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    steps = [line.split(None, 1) for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines() if line]
    return [(word.upper(), text) for word, text in steps]


@pytest.fixture(scope="session")
def image(dockerfile: Steps) -> dict[str, str]:
    """Return the settings of the last stage: of each instruction the last, as Docker takes it."""
    last_stage = max(number for number, (word, _) in enumerate(dockerfile) if word == "FROM")
    return dict(dockerfile[last_stage:])
