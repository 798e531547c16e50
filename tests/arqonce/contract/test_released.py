"""The code keeps the contract of the last release."""

import json
from pathlib import Path

import pytest

from arqonce.contract.compatibility import find_breaks
from arqonce.contract.document import build_document
from jobs.registry import REGISTRY

RELEASED = Path(__file__).parent.parent.parent.parent / "schema" / "released.json"


def test_code_keeps_the_contract_of_the_last_release() -> None:
    """Jobs of that version may be queued, and its producers run for months."""
    released = json.loads(RELEASED.read_text(encoding="utf-8"))

    breaks = find_breaks(released, build_document(REGISTRY, title="users-worker", version="next"))

    if breaks:
        pytest.fail(
            "\n".join(map(str, breaks)) + "\nKeep the old form beside the new one. If nothing of the released version "
            "is queued or running anywhere any more, `make schema` writes the contract anew.",
            pytrace=False,
        )
    assert len(released["operations"]) >= 4
