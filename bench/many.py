"""Part 5: several worker processes of one contender drain one queue of jobs that write."""

from bench.drain import drain
from bench.parts import FAULTS, Plan, jobs_of_a_run, say, told
from bench.results import Results
from bench.stage import Stage

_PROCESSES, _QUICK_PROCESSES = (2, 4, 8), (2,)

_CONTENDERS = (
    "ours",
    "ours-session",
    "ours-shared",
    "pgqueuer-sets",
    "pgqueuer",
    "taskiq-stream",
    "taskiq-list",
    "saq",
    "arq-tuned",
)
"""Ours, and the peers that are fastest with one process."""

_ROUNDS = 2

_LIKELY_GAIN = 1.5
"""How many times the jobs of a run of one process a run has: a run is as short as the others, or a little shorter."""


async def measure_many(stage: Stage, plan: Plan, results: Results) -> None:
    """Part 5. Takes the number of jobs from part 1, or else from the contender's first run there."""
    for _ in range(1 if plan.is_quick else min(_ROUNDS, plan.rounds)):
        for processes in _QUICK_PROCESSES if plan.is_quick else _PROCESSES:
            for contender in plan.chosen(*_CONTENDERS):
                rate = results.median("create_user", contender.name)
                count = round(_LIKELY_GAIN * jobs_of_a_run(plan, rate)) if rate else contender.drain
                try:
                    run = await drain(stage, contender, count, processes=processes)
                except FAULTS as error:
                    told(results, f"{processes} processes", contender, error)
                    continue
                say(f"{processes} processes {contender.name}: {run.rate:,.0f}/s")
                results.add(f"many {processes}", contender.name, run.rate)
