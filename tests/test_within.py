"""A run with ``--within`` begins no test after its time, and says of each that it did not."""

from itertools import groupby
from pathlib import Path
from types import SimpleNamespace

import pytest
from _pytest.outcomes import Skipped

from tests import within

pytestmark = pytest.mark.usefixtures("starts_processes")  # git names the commit


@pytest.fixture(autouse=True)
def _without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(within._End, "at", None)


def test_what_would_begin_too_late_is_skipped_with_the_reason(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others run: here all, as long as there is time."""
    monkeypatch.setattr(pytestconfig.option, "within", 60.0)
    within.pytest_collection_modifyitems(pytestconfig, [])
    within.pytest_runtest_setup()

    monkeypatch.setattr(pytestconfig.option, "within", -1.0)
    within.pytest_collection_modifyitems(pytestconfig, [])
    with pytest.raises(Skipped, match="NOT RUN for lack of time"):
        within.pytest_runtest_setup()


def test_each_process_of_a_run_draws_the_same_order(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise xdist could not distribute the tests; nothing is lost, or drawn without the option, or torn apart."""
    kinds = [SimpleNamespace(path=Path(f"test_{number}.py"), number=number) for number in range(20)]
    before: list[pytest.Item] = [kind for kind in kinds for _ in range(3)]  # type: ignore[misc] # their paths count
    drawn = [list(before) for _ in range(3)]

    within.pytest_collection_modifyitems(request.config, drawn[0])
    monkeypatch.setattr(request.config.option, "within", 60.0)
    for items in drawn[1:]:
        within.pytest_collection_modifyitems(request.config, items)

    assert drawn[0] == before
    assert drawn[1] == drawn[2] != before
    assert sorted(map(id, drawn[1])) == sorted(map(id, before))
    assert len([path for path, _ in groupby(item.path for item in drawn[1])]) == 20
