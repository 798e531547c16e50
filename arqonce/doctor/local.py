"""Compares settings with each other and with the jobs' deadlines. Asks no server."""

from datetime import timedelta

from arqonce.doctor.finding import Finding, judged
from arqonce.settings.worker import Settings
from arqonce.spec import Registry


def settings_checks(settings: Settings, registry: Registry) -> list[Finding]:
    """Return what the settings say about each other."""
    worker, database = settings.worker, settings.database
    shortest = min(registry, key=lambda spec: spec.deadline, default=None)
    longest = registry.longest_deadline
    findings = []
    if shortest is not None:
        command = database.command_timeout
        value = f"the shortest deadline is {_s(shortest.deadline)} ({shortest.name}), a command may take {_s(command)}"
        cure = "lower DATABASE_COMMAND_TIMEOUT or raise the deadline: one slow statement would use up an attempt"
        late = shortest.deadline <= command
        findings.append(judged("settings: deadlines", value, warning=cure if late else None))
    value = f"the grace is {_s(worker.shutdown_grace)}, the longest deadline {_s(longest)}"
    cure = "raise WORKER_SHUTDOWN_GRACE, and the supervisor's limit, or expect long jobs to run again after a deploy"
    findings.append(judged("settings: shutdown", value, warning=cure if longest > 3 * worker.shutdown_grace else None))
    return findings


def _s(duration: timedelta) -> str:
    return f"{duration.total_seconds():g} s"
