"""Formats the results as Markdown that is also readable in a terminal. Ratios come first."""

from collections.abc import Iterable, Sequence

from bench.contenders import CONTENDERS
from bench.figures import number
from bench.reach import GOALS, Goal
from bench.results import Results
from bench.shortfalls import WHY

Row = Sequence[str]

_CONDITIONS = (
    "Durability as by default: fsync and synchronous_commit on, append-only file every second. Our worker writes "
    "receipts unless a line says without. Contenders take turns; each run is verified to have exactly one row per job. "
    "Figures are medians, with the lowest and the highest of all rounds."
)


def table(head: Row, rows: Iterable[Row]) -> str:
    """Format a Markdown table with aligned columns; the first one is text, the others are figures."""
    cells = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(_line(row, widths) for row in (cells[0], rule, *cells[1:]))


def _line(row: Row, widths: Sequence[int]) -> str:
    first, *others = row
    return "| " + " | ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]) + " |"


def report(results: Results, command: str) -> str:
    """Return the whole report."""
    parts = [
        "# Benchmarks",
        f"Made by `{command}`. {_CONDITIONS}",
        _about(results),
        "## Ratios",
        _goals(results),
        *_shortfalls(results),
        *_drain(results),
        *_latency(results),
        *_no_op(results),
        *_others(results),
        *_growth(results),
        *_many(results),
        *_loaded(results),
        *_start(results),
        *_idle_fleet(results),
        *_failures(results),
    ]
    return "\n\n".join(parts) + "\n"


def _about(results: Results) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in results.about.items())


def _goals(results: Results) -> str:
    return table(
        ("measured in this run", "at least", "aim", "measured", ""),
        [
            (goal.title, _limit(goal, goal.least), _limit(goal, goal.aim), _value(goal, results), goal.verdict(results))
            for goal in GOALS
        ],
    )


def _shortfalls(results: Results) -> Iterable[str]:
    """Say of goals that were not met why that is so, where it is known."""
    missed = [goal.title for goal in GOALS if goal.verdict(results) == "NOT MET" and goal.title in WHY]
    if missed:
        yield "What is not met, and why:\n\n" + "\n".join(f"- **{title}**: {WHY[title]}" for title in missed)


def _limit(goal: Goal, limit: float) -> str:
    return f"{'<=' if goal.is_ceiling else '>='} {limit:g}{_unit(goal)}"


def _value(goal: Goal, results: Results) -> str:
    value = goal.measure(results)
    return "" if value is None else f"{number(value)}{_unit(goal)}"


def _unit(goal: Goal) -> str:
    return f" {goal.unit}"


def _title(name: str) -> str:
    return CONTENDERS[name].title if name in CONTENDERS else name


def _sorted_by_rate(results: Results, what: str) -> list[str]:
    return sorted(results.measured.get(what, {}), key=lambda name: -(results.median(what, name) or 0))


def _drain(results: Results) -> list[str]:
    names = _sorted_by_rate(results, "create_user")
    if not names:
        return []
    arq = results.median("create_user", "arq-tuned")
    rows = []
    for name in names:
        rate = results.spread("create_user", name)
        ratio = "" if not arq or rate is None else f"{number(rate.median / arq)} x"
        cpu, commands = (results.median(f"create_user {what}", name) or 0 for what in ("cpu", "commands"))
        rows.append((_title(name), ratio, str(rate), number(cpu), number(commands)))
    head = (
        "one worker process drains create_user",
        "to tuned arq",
        "jobs/s",
        "CPU per job, µs",
        "Redis commands per job",
    )
    return ["## 1. create_user: open a session, insert a user, commit", table(head, rows)]


def _latency(results: Results) -> list[str]:
    names = sorted(results.measured.get("commit", {}), key=lambda name: results.percentile("commit", name, 0.5) or 0)
    if not names:
        return []
    rows = [
        (
            _latency_title(name),
            *(_ms(results, what, name, share) for what in ("commit", "result") for share in (0.5, 0.99)),
        )
        for name in names
    ]
    head = ("an idle worker, one job at a time", "commit p50, ms", "p99", "result p50, ms", "p99")
    return ["## 2. From enqueue to commit, and to the result in the producer's hands", table(head, rows)]


def _latency_title(name: str) -> str:
    return "enqueue plus the job, no queue between (the floor)" if name == "no-queue-10" else _title(name)


def _ms(results: Results, what: str, name: str, share: float) -> str:
    value = results.percentile(what, name, share)
    return "" if value is None else number(value)


_UNFINISHED = "† The time was up before all were done: the rate so far."


def _no_op(results: Results) -> list[str]:
    counts = _counts(results, "no_op")
    if not counts:
        return []
    names = _sorted_by_rate(results, f"no_op {counts[0]}")
    rows = [(_title(name), *(_rate(results, count, name) for count in counts)) for name in names]
    head = (
        "20,000 jobs that do nothing, jobs/s",
        *(f"{count} {'process' if count == 1 else 'processes'}" for count in counts),
    )
    return ["## 3. No-ops", table(head, rows), _UNFINISHED]


def _rate(results: Results, count: int, name: str) -> str:
    found = results.spread(f"no_op {count}", name)
    if found is None:
        return ""
    return number(found.median) + (" †" if results.values(f"unfinished {count}", name) else "")


_OTHERS = {
    "find_user": "### Look-up by id, one process, jobs/s",
    "enqueue": "### Enqueue, one producer, jobs/s",
}
"""Series with their own tables."""


def _others(results: Results) -> list[str]:
    parts = []
    for what, title in _OTHERS.items():
        if names := _sorted_by_rate(results, what):
            rows = [(_title(name), str(results.spread(what, name))) for name in names]
            parts += [title, table(("", "jobs/s"), rows)]
    return parts


QUEUED_JOB = "Redis, bytes per queued job"
"""A row of the last table."""


_GROWN = ("create_user as things grow, our worker", "jobs/s", "time per job, to the least in the same round")


def _growth(results: Results) -> list[str]:
    rows = [*_grown(results, "queued", "jobs queued behind those that run"), *_grown(results, "stored", "rows stored")]
    rows += _grown(results, "unused", "dead letters and promises that are not due")
    parts = []
    if rows:
        parts += [table(_GROWN, rows)]
    if looks := _looks(results):
        parts += [looks]
    if costs := _costs(results):
        parts += [table(("what a job and what idling cost, our worker", ""), costs)]
    return ["## 4. Growth and cost", *parts] if parts else []


def _looks(results: Results) -> str:
    sizes = _counts(results, "look")
    names = results.measured.get(f"look {sizes[0]}", {}) if sizes else {}
    rows = [(name, *(number(results.median(f"look {size}", name) or 0) for size in sizes)) for name in names]
    return table(("looks that find nothing, ms", *(f"{size:,} unused rows" for size in sizes)), rows) if rows else ""


def _costs(results: Results) -> list[Row]:
    rows = [(what, name, name) for what in ("cost", "idle") for name in results.measured.get(what, {})]
    memory = [(what, name) for what, name in (("memory", QUEUED_JOB), *_worker_memory(results))]
    rows += [(what, name, _memory_title(what, name)) for what, name in memory if results.values(what, name)]
    return [(title, number(results.median(what, name) or 0)) for what, name, title in rows]


def _grown(results: Results, what: str, title: str) -> list[Row]:
    sizes = _counts(results, what)
    return [
        (
            f"{size:,} {title}",
            str(results.spread(f"{what} {size}", "ours")),
            str(results.spread(f"{what} ratio {size}", "ours") or ""),
        )
        for size in sizes
    ]


def _counts(results: Results, what: str) -> list[int]:
    """Return the numbers with which this was measured."""
    names = [name.removeprefix(f"{what} ") for name in results.measured if name.startswith(f"{what} ")]
    return sorted(int(name) for name in names if name.isdigit())


def _worker_memory(results: Results) -> list[tuple[str, str]]:
    return [(what, "ours") for what in results.measured if what.startswith("queued memory ")]


def _memory_title(what: str, name: str) -> str:
    if what == "memory":
        return f"memory of {name}"
    return f"memory of the worker with {int(what.rpartition(' ')[2]):,} jobs queued, MB"


def _many(results: Results) -> list[str]:
    counts = _counts(results, "many")
    if not counts:
        return []
    whats = ["create_user", *(f"many {count}" for count in counts)]
    names = _sorted_by_rate(results, whats[-1])
    rows = [(_title(name), *(str(results.spread(what, name) or "") for what in whats)) for name in names]
    head = ("create_user, jobs/s", "1 process", *(f"{count} processes" for count in counts))
    return ["## 5. Several processes", table(head, rows)]


def _loaded(results: Results) -> list[str]:
    load = results.median("load", "ours")
    if load is None:
        return []
    head = ("single jobs in an urgent queue, from enqueue to commit", "p50, ms", "p99")
    title = f"one worker that has {number(load)} other jobs/s to do, 70 % of its capacity"
    row = (title, *(_ms(results, "loaded", "ours", share) for share in (0.5, 0.99)))
    return ["## 6. Urgent jobs on a loaded worker", table(head, [row])]


def _start(results: Results) -> list[str]:
    rows = [(name, str(results.spread("start", name))) for name in results.measured.get("start", {})]
    return ["## 7. Start", table(("", ""), rows)] if rows else []


def _idle_fleet(results: Results) -> list[str]:
    parts = []
    for what in results.measured:
        if what.startswith("idle fleet of "):
            rows = [(name, number(results.median(what, name) or 0)) for name in results.measured[what]]
            parts.append(table((f"{what} workers, as users-worker run starts them", ""), rows))
    return ["## 8. An idle fleet", *parts] if parts else []


def _failures(results: Results) -> list[str]:
    if not results.failures:
        return []
    return ["## Flaws and failures", "\n".join(f"- {what}: {why}" for what, why in results.failures.items())]
