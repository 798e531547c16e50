"""``schedules``: lists schedules, pauses and resumes them, and runs one now."""

import json
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from arqonce.application import Application
from arqonce.commands.asking import AsJson, By, Why, acting, ask, in_a_line
from arqonce.commands.durations import duration_of
from arqonce.commands.group import build_group
from arqonce.commands.program import program
from arqonce.commands.table import print_table
from arqonce.control import schedules as control
from arqonce.ledger.schedule_control import UNTIL_RESUMED, ListedSchedule, list_schedules
from arqonce.process.exit_codes import ExitCode
from arqonce.settings.worker import WorkerSettings
from arqonce.usage import UsageError

Names = Annotated[list[str], typer.Argument(help="Names of schedules.", callback=in_a_line)]


def build_schedules_app() -> typer.Typer:
    """Build the command group."""
    commands: dict[str, Callable[..., None]] = {
        "list": list_,
        "pause": pause,
        "resume": resume,
        "run-now": run_now,
    }
    return build_group(commands)


def list_(
    *,
    count: Annotated[int, typer.Option("--next", min=1, max=100, help="How many next slots to show.")] = 1,
    as_json: AsJson = False,
) -> None:
    """List the schedules that workers have: when, the next slots, the last job, and who has paused them and why.

    For programs, in a pipe, the columns are separated by tabs; --json has more.
    """
    found = [_summary(listed, count) for listed in ask(list_schedules)]
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    titles = ("schedule", "when", "next, local", "next, UTC", "last slot, UTC", "last job", "paused")
    print_table(titles, [_cells(summary) for summary in found])


def pause(
    names: Names,
    *,
    why: Why = None,
    until: Annotated[
        str | None, typer.Option(help="End: after a time such as 2h, or at 2026-06-01T12:00+02:00; else resume it.")
    ] = None,
    by: By = None,
) -> None:
    """Skip the slots that come from now on, until resumed. Jobs that are promised already still run.

    The pause is recorded in PostgreSQL: neither restarts, nor deploys, nor a loss of Redis end it.
    """
    end = UNTIL_RESUMED if until is None else _read_end(until)
    who = acting(by)
    _tell("paused", ask(lambda session: control.pause(session, names, until=end, who=who, why=why)), names)


def resume(names: Names, *, why: Why = None, by: By = None) -> None:
    """Promise the slots that come from now on. Those of the pause remain skipped."""
    who = acting(by)
    _tell("resumed", ask(lambda session: control.resume(session, names, who=who, why=why)), names)


def run_now(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the schedule.", callback=in_a_line)],
    *,
    as_json: AsJson = False,
    why: Why = None,
    by: By = None,
) -> None:
    """Promise one more job of the schedule, due now, also while it is paused; print the job's id.

    Its slot is the time of the database. Needs the registry of the workers, and a worker that runs the job.
    """
    application: Application = context.obj
    registry = application.load().registry
    schedule = registry.schedules.get(name)
    if schedule is None:
        known = ", ".join(registry.schedules) or "none; name a registry with --registry module:NAME"
        raise UsageError(f"no registry here has the schedule {name}: there are {known}")
    queue, who = WorkerSettings.load().default_queue, acting(by)
    job_id = ask(lambda session: control.run_now(session, registry, schedule, default_queue=queue, who=who, why=why))
    typer.echo(json.dumps({"job_id": job_id}) if as_json else f"job {job_id}")


def _summary(listed: ListedSchedule, count: int) -> dict[str, object]:
    state = listed.state
    pauses = listed.state.paused_until if listed.is_paused else None
    return {
        "name": state.name,
        "when": control.when(listed),
        "zone": state.zone,
        "job_name": state.job_name,
        "queue": state.queue,
        "overlap": state.overlap,
        "catch_up_seconds": state.catch_up.total_seconds(),
        "next": [
            {"local": slot.astimezone(ZoneInfo(state.zone)).isoformat(), "utc": _utc(slot)}
            for slot in control.next_slots(listed, count)
        ],
        "last_slot": _utc(state.last_slot),
        "last_job_id": state.last_job_id,
        "last_outcome": listed.last_outcome,
        "skipped": state.skipped,
        "last_skipped": _utc(state.last_skipped),
        "skip_reason": state.skip_reason,
        "paused": listed.is_paused,
        "paused_at": _utc(state.paused_at) if pauses else None,
        "paused_by": state.paused_by if pauses else None,
        "paused_why": state.paused_why if pauses else None,
        "paused_until": _utc(pauses) if pauses != UNTIL_RESUMED else None,
    }


def _cells(summary: dict[str, object]) -> list[str]:
    slots = summary["next"]
    assert isinstance(slots, list)  # noqa: S101 - made above
    paused = ""
    if summary["paused"]:
        facts = (("by", "paused_by"), ("until", "paused_until"), ("because:", "paused_why"))
        paused = " ".join(
            ["since", str(summary["paused_at"]), *(f"{word} {summary[key]}" for word, key in facts if summary[key])]
        )
    return [
        str(summary["name"]),
        str(summary["when"]),
        "\n".join(slot["local"] for slot in slots) or "-",
        "\n".join(slot["utc"] for slot in slots) or "-",
        str(summary["last_slot"] or "-"),
        str(summary["last_outcome"] or "-"),
        paused or "-",
    ]


def _utc(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _read_end(text: str) -> datetime | timedelta:
    end: datetime | timedelta
    try:
        end = datetime.fromisoformat(text)
    except ValueError:
        try:
            end = duration_of("--until", text)
        except typer.BadParameter as error:
            error.message += ", or a time: 2026-06-01T12:00+02:00"
            raise
    if isinstance(end, datetime) and end.tzinfo is None:
        raise typer.BadParameter("has no time zone: write 2026-06-01T12:00+02:00 or ...Z", param_hint="--until")
    if end <= (datetime.now(UTC) if isinstance(end, datetime) else timedelta(0)):  # type: ignore[operator] # of one kind
        raise typer.BadParameter("is over: nothing would be paused", param_hint="--until")
    return min(end, UNTIL_RESUMED) if isinstance(end, datetime) else end


def _tell(done: str, found: Collection[str], asked: Sequence[str]) -> None:
    """Print what was found; exit with 1 if a name is unknown."""
    for name in dict.fromkeys(asked):
        if name in found:
            typer.echo(f"{done} {name}")
        else:
            typer.echo(f"{program()}: no worker has a schedule {name}: see {program()} schedules list", err=True)
    if set(asked) - set(found):
        raise typer.Exit(ExitCode.FAILED)
