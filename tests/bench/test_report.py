"""The report, the goals and the chart from given figures."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench.chart import Bar, bars, draw
from bench.reach import GOALS
from bench.report import report, table
from bench.results import Results
from bench.shortfalls import WHY


@pytest.fixture
def results() -> Results:
    """Return figures that are easy to reckon with."""
    results = Results(about={"Machine": "two cores"})
    for name, rates in {
        "ours": (20_000.0, 22_000.0, 21_000.0),
        "arq-tuned": (700.0, 690.0, 710.0),
        "pgqueuer": (1400.0,),
        "pgqueuer-sets": (10_500.0,),
        "asyncpg": (30_000.0,),
    }.items():
        results.add("create_user", name, *rates)
    results.add("commit", "ours", *(float(value) for value in range(1, 101)))
    results.add("commit", "no-queue-10", 49.5)
    results.add("commit", "saq", 100.0)
    results.fail("create_user", "streaQ", "it did not start")
    return results


def verdicts(results: Results) -> dict[str, str]:
    """Return what is said of each goal."""
    return {goal.title: goal.verdict(results) for goal in GOALS}


def test_goals_are_ratios_of_medians_and_say_whether_they_are_reached(results: Results) -> None:
    """At least, aim, and neither; lower is better below a ceiling; nothing is said of what was not measured."""
    found = verdicts(results)

    assert found["create_user against tuned arq"] == "aim met"  # 30.0
    assert found["create_user against the fastest peer"] == "met"  # 15 of 8 and 18, sets by hand left out
    assert found["create_user against PgQueuer with the same set-based body by hand"] == "met"  # 2.0
    assert found["create_user against bare asyncpg, one INSERT per job"] == "met"  # 0.7
    assert found["idle, enqueue to commit, p50 over the floor"] == "met"  # 50 - 49.5 = 0.5 ms
    assert found["idle, p50 against the quickest peer"] == "aim met"  # 50 against 100
    assert found["idle, enqueue to commit, p99"] == "NOT MET"  # 99 ms
    assert found["find_user by id against the fastest peer"] == "not measured"


def test_the_report_has_ratios_first_then_spreads_then_failures(results: Results) -> None:
    """Whoever reads only the beginning reads what matters, and nothing that failed is left out."""
    text = report(results, "make bench")

    assert "Made by `make bench`" in text
    assert text.index("## Ratios") < text.index("## 1. create_user") < text.index("it did not start")
    assert "21,000 (20,000 - 22,000)" in text
    assert "30.0 x" in text


def test_a_table_is_markdown_with_aligned_columns() -> None:
    """It is read in a terminal as well."""
    assert table(("what", "jobs/s"), [("a", "10"), ("longer", "9")]).splitlines() == [
        "| what   | jobs/s |",
        "| ------ | -----: |",
        "| a      |     10 |",
        "| longer |      9 |",
    ]


def test_bars_are_in_proportion_from_zero(results: Results) -> None:
    """Twice the rate is twice the length, and the chart is an image that any parser reads."""
    chart = ET.fromstring(draw(bars(results), title="a < b", note="two cores"))  # noqa: S314 - our own text
    names = [text.text for text in chart.iter("{http://www.w3.org/2000/svg}text")]
    widths = [float(bar.attrib["width"]) for bar in chart.iter("{http://www.w3.org/2000/svg}rect")]

    assert names[:4] == ["a < b", "two cores", "bare asyncpg, one prepared INSERT per job", "30,000"]
    assert widths[1] == pytest.approx(widths[0] * 21 / 30, abs=0.1)
    assert "prefers-color-scheme: dark" in draw([Bar("x", 1, "ours")], title="", note="")


def test_results_survive_as_json(results: Results, tmp_path: Path) -> None:
    """The report can be written again from what was kept."""
    results.write(tmp_path / "benchmarks.json")

    assert Results.read(tmp_path / "benchmarks.json") == results


def test_what_is_not_met_is_explained(results: Results) -> None:
    """And nothing else is; each explanation is of a goal that there is."""
    results.add("no_op 1", "ours", 1000.0)
    results.add("no_op 1", "pgqueuer", 1000.0)

    text = report(results, "make bench")

    assert "- **no-op, one process, against the fastest peer**: " in text
    assert "- **create_user against tuned arq**" not in text
    assert set(WHY) <= {goal.title for goal in GOALS}
