"""The rounds of part 4."""

from bench.contenders import CONTENDERS
from bench.drain import drain
from bench.growth import behind_backlog, cost, drain_on, idle, store, stored_database
from bench.parts import FAULTS, Plan, say
from bench.report import QUEUED_JOB
from bench.results import Results
from bench.stage import Stage
from bench.unused import Unused, fill_ledger, fill_redis, time_looks

_DEPTHS, _QUICK_DEPTHS = (1000, 100_000, 1_000_000), (1000, 100_000)
_STORED, _QUICK_STORED = (1_000_000, 10_000_000), (300_000,)

_UNUSED, _QUICK_UNUSED = Unused(10_000_000, 100_000, 10_000), Unused(300_000, 5000, 200)

_JOBS, _QUICK_JOBS = 30_000, 10_000
"""Jobs of one run."""

_ROUNDS = 3

_FLEETS, _QUICK_FLEETS = (1, 10, 40), (1, 10)

_IDLE_SECONDS, _QUICK_IDLE_SECONDS = 20.0, 4.0


async def measure_growth(stage: Stage, plan: Plan, results: Results) -> None:
    """Part 4, only with our worker. A measurement that fails is reported, and the others continue."""
    if "ours" not in plan.contenders:
        return
    for measure in (_measure_cost, _measure_idle, _measure_queued, _measure_stored, _measure_unused):
        try:
            await measure(stage, plan, results)
        except FAULTS as error:
            say(f"growth failed: {error}")
            results.fail("growth", measure.__name__.removeprefix("_measure_"), f"{type(error).__name__}: {error}")


async def _measure_cost(stage: Stage, plan: Plan, results: Results) -> None:
    found = await cost(stage, _QUICK_JOBS if plan.is_quick else _JOBS)
    say(f"cost: {found}")
    results.add("cost", "Redis commands per job, those inside scripts included", found.commands)
    results.add("cost", "round trips to Redis per job (reads of a connection)", found.reads)
    results.add("cost", "transactions of PostgreSQL per job", found.transactions)
    for name, calls in sorted(found.calls.items(), key=lambda item: -item[1]):
        if calls >= 0.01:
            results.add("cost", f"of the commands, {name.upper()}", calls)


async def _measure_idle(stage: Stage, plan: Plan, results: Results) -> None:
    for processes in _QUICK_FLEETS if plan.is_quick else _FLEETS:
        seconds = _QUICK_IDLE_SECONDS if plan.is_quick or processes > 1 else _IDLE_SECONDS
        found = await idle(stage, processes=processes, seconds=seconds)
        say(f"idle, {processes} workers: {found}")
        if processes == 1:
            results.add("idle cpu", "ours", found.cpu)
            results.add("idle commands", "ours", found.commands)
        results.add("idle", f"CPU of {processes} idle workers, % of a core", found.cpu)
        results.add("idle", f"Redis commands a second of {processes} idle workers", found.commands)
        results.add("idle", f"Redis commands of one job with {processes} idle workers", found.commands_per_enqueue)


async def _measure_queued(stage: Stage, plan: Plan, results: Results) -> None:
    count = _QUICK_JOBS if plan.is_quick else _JOBS
    for _ in range(1 if plan.is_quick else _ROUNDS):
        for depth in _QUICK_DEPTHS if plan.is_quick else _DEPTHS:
            found = await behind_backlog(stage, depth=depth, count=count)
            say(f"{depth:,} queued: {found.rate:,.0f}/s")
            results.add(f"queued {depth}", "ours", found.rate)
            results.add(f"queued ratio {depth}", "ours", results.values("queued 1000", "ours")[-1] / found.rate)
            results.add(f"queued memory {depth}", "ours", found.worker_bytes / 1e6)
            if depth > 1000:
                results.add("memory", QUEUED_JOB, found.redis_bytes_per_job)


async def _measure_stored(stage: Stage, plan: Plan, results: Results) -> None:
    """Measure in turn on a database that is emptied each time, and on one that grows."""
    count = _QUICK_JOBS if plan.is_quick else _JOBS
    async with stored_database(stage) as grown:
        first, stored = 1_000_000_000, 0
        for rows in _QUICK_STORED if plan.is_quick else _STORED:
            say(f"storing {rows:,} users and receipts")
            await store(grown, stored + 1, rows)
            stored = rows
            for _ in range(1 if plan.is_quick else _ROUNDS):
                empty = await drain(stage, CONTENDERS["ours"], count)
                await grown.observer.redis.flushall()
                full = await drain_on(grown, count, first=first)
                first += 2 * count
                say(f"{rows:,} stored: {full.rate:,.0f}/s, none: {empty.rate:,.0f}/s")
                results.add("stored 0", "ours", empty.rate)
                results.add(f"stored {rows}", "ours", full.rate)
                results.add(f"stored ratio {rows}", "ours", empty.rate / full.rate)


async def _measure_unused(stage: Stage, plan: Plan, results: Results) -> None:
    """Measure in turn on empty servers, and on those that are full of what our worker does not use."""
    count, unused = (_QUICK_JOBS, _QUICK_UNUSED) if plan.is_quick else (_JOBS, _UNUSED)
    async with stored_database(stage) as filled:
        say(f"storing {unused}")
        await fill_ledger(filled, unused)
        say("stored")
        for turn in range(1 if plan.is_quick else _ROUNDS):
            empty = await drain(stage, CONTENDERS["ours"], count)
            await fill_redis(filled, unused.queues)
            full = await drain_on(filled, count, first=turn * 2 * count)
            say(f"{unused.rows:,} unused: {full.rate:,.0f}/s, none: {empty.rate:,.0f}/s")
            results.add("unused 0", "ours", empty.rate)
            results.add(f"unused {unused.rows}", "ours", full.rate)
            results.add(f"unused ratio {unused.rows}", "ours", empty.rate / full.rate)
        await fill_redis(filled, unused.queues)
        for rows, where in ((unused.rows, filled), (0, stage)):
            async for look, ms in time_looks(where):
                say(f"{rows:,} unused, {look}: {ms:.2f} ms")
                results.add(f"look {rows}", look, ms)
            await stage.observer.empty()
