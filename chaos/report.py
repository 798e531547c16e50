"""Formats what a run did and its outcome: one table for people, or one row of Markdown."""

from collections import Counter
from collections.abc import Mapping

from chaos.careless import Careless
from chaos.checks import Verdict
from chaos.limits import Limited
from chaos.plan import Plan, Route
from chaos.small_disk import can_mount


def facts(plan: Plan, verdict: Verdict, faults: Mapping[str, int], drain: float) -> dict[str, str]:
    """Return the columns of the table."""
    evidence = verdict.evidence
    routes = Counter(order.route for order in verdict.submitted)
    limited = sum(isinstance(order.payload, Limited) for order in verdict.submitted)
    ends = Counter({end.split(":")[0]: times for end, times in evidence.ends.items()})

    def counted(*names: str) -> str:
        return "/".join(str(faults.get(name, 0)) for name in names)

    return {
        "seed": str(plan.seed),
        "check": "FAIL" if verdict.breaches else "pass",
        "submitted direct/outbox": f"{routes[Route.DIRECT]}/{routes[Route.OUTBOX]}",
        "receipts": str(sum(order.key in evidence.receipts for order in verdict.submitted)),
        "dead": str(sum(order.key in evidence.dead for order in verdict.submitted)),
        "lost": str(len(verdict.missing) - len(verdict.lost_by_redis)),
        "lost by Redis, direct": str(len(verdict.lost_by_redis)),
        "effects/users": f"{evidence.effects.total()}/{len(evidence.users)}",
        "drain s": f"{drain:.1f}",
        "SIGKILL/TERM/STOP": counted("kill", "term", "stop"),
        "cuts Redis/PG": counted("cut-valkey", "cut-postgres"),
        "Redis kill/wipe": counted("valkey-kill", "valkey-wipe"),
        "PG immediate": counted("postgres-stop"),
        "black holes/delays": counted("black-hole", "delay"),
        "locks/exhausted": counted("lock", "exhaust"),
        "hostile": counted("hostile"),
        "failovers PG/Redis/demoted": counted("pg-failover", "valkey-failover", "valkey-demote"),
        "PG read-only/disk full": f"{counted('pg-read-only')}/{_disk_full(plan, faults)}",
        "standstills one/all": counted("standstill of one", "standstill of all"),
        "pauses": counted("pause"),
        "answers heard": str(sum(map(len, evidence.heard.values()))),
        "careless": str(sum(isinstance(order.payload, Careless) for order in verdict.submitted)),
        "functions/runs": f"{len(evidence.functions)}/{sum(map(len, evidence.function_runs.values()))}",
        "slots": str(sum(slots.effects.total() for slots in evidence.schedules.values())),
        "limited/over": f"{limited}/{len(evidence.over)}",
        "worker exits": str(ends.total()),
        "batches": str(evidence.batches),
    }


def _disk_full(plan: Plan, faults: Mapping[str, int]) -> str:
    """Return the count, or that this machine cannot mount a small disk."""
    cannot = "pg-disk-full" in plan.faults and not can_mount()
    return "cannot mount here" if cannot else str(faults.get("pg-disk-full", 0))


def table(columns: Mapping[str, str]) -> str:
    """Format the facts, one per line."""
    width = max(map(len, columns))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in columns.items())


def markdown(columns: Mapping[str, str], *, header: bool = False) -> str:
    """Format the facts as a row of Markdown, with the two rows of the header if requested."""
    rows = [list(columns.values())]
    if header:
        rows = [list(columns), ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
