"""A project in a folder of its own, whose tests run in a process of their own."""

import os
import shutil
from pathlib import Path

import pytest

SAMPLE = Path(__file__).parent / "sample"


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Make the sample project, which starts servers of its own."""
    shutil.copy(SAMPLE / "notes.py", pytester.path)
    shutil.copy(SAMPLE / "fixtures.py", pytester.path / "conftest.py")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[3]), str(pytester.path)]))
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.delenv("CI", raising=False)  # pytest's summary then repeats messages whole
    return pytester


@pytest.fixture
def project_here(project: pytest.Pytester, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Let the sample project use the server that runs already."""
    monkeypatch.setenv("SAMPLE_POSTGRES_URL", f"{postgres_url}?sslmode=disable")
    return project
