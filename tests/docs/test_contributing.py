"""The example in CONTRIBUTING is a test; here it is run."""

import re
from pathlib import Path
from typing import Any

from arqonce.testing.crash.crash_points import CrashPoints

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"


async def test_the_example_of_crash_points_passes(crash_points: CrashPoints) -> None:
    """As it stands there."""
    (example,) = re.findall(r"^```python\n(.*?)^```", CONTRIBUTING.read_text(), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(example, names)  # noqa: S102 - our own text

    await names["test_jane_is_stored_once_wherever_a_worker_dies"](crash_points)
