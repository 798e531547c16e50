"""The goals of the benchmark: ratios within one run on one machine, with receipts."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.contenders import CONTENDERS
from bench.results import Results

Measure = Callable[[Results], float | None]


@dataclass(frozen=True)
class Goal:
    """One row of the table of ratios."""

    title: str
    least: float
    aim: float
    measure: Measure
    unit: str = "x"
    is_ceiling: bool = False
    """Whether lower is better."""

    def verdict(self, results: Results) -> str:
        """Return whether the goal was met."""
        value = self.measure(results)
        if value is None:
            return "not measured"
        if self._holds(value, self.aim):
            return "aim met"
        return "met" if self._holds(value, self.least) else "NOT MET"

    def _holds(self, value: float, limit: float) -> bool:
        return value <= limit if self.is_ceiling else value >= limit


def _ratio(value: float | None, to: float | None) -> float | None:
    return None if value is None or not to else value / to


def _against(what: str, name: str, rival: str) -> Measure:
    return lambda results: _ratio(results.median(what, name), results.median(what, rival))


def peers(results: Results, what: str) -> list[str]:
    """Return the measured peers, without those with a handwritten set-based body, which have their own goal."""
    return [
        name
        for name in results.measured.get(what, {})
        if CONTENDERS[name].role == "peer" and not CONTENDERS[name].is_set_based
    ]


def _against_fastest_peer(what: str, ours: str = "ours") -> Measure:
    def measure(results: Results) -> float | None:
        rates = [results.median(what, name) or 0 for name in peers(results, what)]
        return _ratio(results.median(what, ours), max(rates, default=None))

    return measure


def _against_no_queue(ours: str) -> Measure:
    def measure(results: Results) -> float | None:
        rates = [results.median("create_user", name) or 0 for name in ("no-queue-10", "no-queue-50")]
        return _ratio(results.median("create_user", ours), max(rates))

    return measure


def _against_best_count(results: Results) -> float | None:
    rates = [results.median(what, "ours") or 0 for what in results.measured if what.startswith("no_op ")]
    return _ratio(results.median("no_op 40", "ours"), max(rates, default=None))


def _against_best_peers(ours: str) -> Measure:
    """Return the lowest of the ratios to the best peer, over all counts of processes."""

    def measure(results: Results) -> float | None:
        ratios = [_against_fastest_peer(what, ours)(results) for what in results.measured if what.startswith("many ")]
        return min((ratio for ratio in ratios if ratio is not None), default=None)

    return measure


def _start_of(word: str) -> Measure:
    def measure(results: Results) -> float | None:
        return next((results.median("start", name) for name in results.measured.get("start", {}) if word in name), None)

    return measure


def _of_fleet(row: str) -> Measure:
    return lambda results: results.median("idle fleet of 40", row)


def _over_floor(results: Results) -> float | None:
    ours, floor = (results.percentile("commit", name, 0.5) for name in ("ours", "no-queue-10"))
    return None if ours is None or floor is None else ours - floor


def _against_quickest_peer(share: float) -> Measure:
    def measure(results: Results) -> float | None:
        values = [results.percentile("commit", name, share) or 0 for name in peers(results, "commit")]
        return _ratio(results.percentile("commit", "ours", share), min(values, default=None))

    return measure


GOALS = (
    Goal("create_user against tuned arq", 24, 30, _against("create_user", "ours", "arq-tuned")),
    Goal("create_user against the fastest peer", 8, 18, _against_fastest_peer("create_user")),
    Goal(
        "create_user against PgQueuer with the same set-based body by hand",
        2,
        2.5,
        _against("create_user", "ours", "pgqueuer-sets"),
    ),
    Goal("create_user with metrics against without", 0.98, 1, _against("create_user", "ours-metrics", "ours")),
    Goal(
        "create_user of a limited kind against an unlimited one",
        0.6,
        0.8,
        _against("create_user", "ours-limited", "ours"),
    ),
    Goal("create_user, three queues against one", 0.95, 1, _against("create_user", "ours-queues", "ours")),
    Goal("create_user against bare asyncpg, one INSERT per job", 0.7, 1.5, _against("create_user", "ours", "asyncpg")),
    Goal("ordinary handler against the same coroutine with no queue", 0.9, 1.1, _against_no_queue("ours-session")),
    Goal(
        "the same with shares_transaction against tuned arq",
        3.5,
        5,
        _against("create_user", "ours-shared", "arq-tuned"),
    ),
    Goal("the same with shares_transaction against no queue", 2, 3, _against_no_queue("ours-shared")),
    Goal("find_user by id against the fastest peer", 8, 15, _against_fastest_peer("find_user")),
    Goal("no-op, one process, against the fastest peer", 2.2, 3, _against_fastest_peer("no_op 1")),
    Goal("no-op, one process, against tuned arq", 3, 8, _against("no_op 1", "ours", "arq-tuned")),
    Goal("no-op, 40 processes against our best count of processes", 0.8, 0.95, _against_best_count),
    Goal("idle, enqueue to commit, p50 over the floor", 1, 0.3, _over_floor, "ms", is_ceiling=True),
    Goal("idle, p50 against the quickest peer", 1, 1, _against_quickest_peer(0.5), is_ceiling=True),
    Goal(
        "idle, enqueue to commit, p99",
        10,
        5,
        lambda results: results.percentile("commit", "ours", 0.99),
        "ms",
        is_ceiling=True,
    ),
    Goal("idle, p99 against the quickest peer", 1, 1, _against_quickest_peer(0.99), is_ceiling=True),
    Goal("idle worker, CPU", 1, 0.2, lambda results: results.median("idle cpu", "ours"), "%", is_ceiling=True),
    Goal(
        "idle worker, Redis commands",
        2,
        0.2,
        lambda results: results.median("idle commands", "ours"),
        "/s",
        is_ceiling=True,
    ),
    Goal("idle fleet of 40 workers, CPU", 1, 0.6, _of_fleet("CPU, % of a core"), "%", is_ceiling=True),
    Goal("idle fleet of 40 workers, Redis commands", 10, 5, _of_fleet("Redis commands/s"), "/s", is_ceiling=True),
    Goal(
        "time per job, 1 million queued against 1 thousand",
        1.1,
        1.05,
        lambda results: results.median("queued ratio 1000000", "ours"),
        is_ceiling=True,
    ),
    Goal(
        "time per job, 10 million users and receipts stored against none",
        1.3,
        1.1,
        lambda results: results.median("stored ratio 10000000", "ours"),
        is_ceiling=True,
    ),
    Goal(
        "time per job, with 10 million dead letters and 10 million promises that are not due against none",
        1.1,
        1.05,
        lambda results: results.median("unused ratio 10000000", "ours"),
        is_ceiling=True,
    ),
    Goal(
        "create_user, 2 to 8 processes, against the best peer at each count",
        8,
        18,
        _against_best_peers("ours"),
    ),
    Goal("the same, ordinary handler", 1, 1.5, _against_best_peers("ours-session")),
    Goal(
        "loaded to 70 %, a single urgent job, p99",
        50,
        20,
        lambda results: results.percentile("loaded", "ours", 0.99),
        "ms",
        is_ceiling=True,
    ),
    Goal("first job after users-worker run", 0.5, 0.4, _start_of("commit"), "s", is_ceiling=True),
    Goal("memory of an idle worker", 80, 70, _start_of("memory"), "MB", is_ceiling=True),
    Goal("enqueue_many against a loop of arq's enqueue_job", 10, 20, _against("enqueue", "enqueue_many", "arq-tuned")),
)
"""Rates are compared: time per job is their inverse."""
