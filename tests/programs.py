"""Programs of the system that only some tests need."""

import os
import shutil

import pytest


def require(*programs: str) -> None:
    """Skip the test where one of them is missing; fail in CI, so that none is skipped unseen."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing and os.environ.get("CI"):
        pytest.fail(f"{', '.join(missing)}: not installed")
    if missing:
        pytest.skip(f"{', '.join(missing)}: not installed")
