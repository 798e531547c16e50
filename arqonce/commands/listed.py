"""Lists the library's commands: where each is defined, and its line in the help. Imports none of them."""

from typing import NamedTuple


class Command(NamedTuple):
    """A command, or a group of commands, that is imported when it is called."""

    home: str
    """Where it is, as ``module:function``: the command itself, or for a group what builds it."""

    summary: str
    """The help of all commands has its first sentence, a line that a terminal of 80 columns does not cut."""

    has_own_help: bool = False
    """Of a group: whether what builds it says more."""


COMMANDS = {
    "run": Command("arqonce.commands.run:run", "Run a worker, or several."),
    "relay": Command("arqonce.commands.relay:relay", "Write promised jobs into Redis, and run none."),
    "migrate": Command("arqonce.commands.migrate:migrate", "Apply the missing migrations."),
    "status": Command("arqonce.commands.status:status", "Show what waits, runs, fails and is done."),
    "doctor": Command("arqonce.commands.doctor:doctor", "Say what is wrong with servers and settings."),
    "health": Command("arqonce.commands.health:health", "Exit with 0 if the worker of this machine is well."),
    "new-job": Command("arqonce.commands.new_job:new_job", "Write a new job, and a test that passes."),
    "dev": Command("arqonce.commands.dev:dev", "Run servers and a worker until Ctrl-C."),
    "schema": Command("arqonce.commands.schema:schema", "Print the contract with producers."),
    "arq-check": Command("arqonce.commands.arq_check:arq_check", "Say what will differ when an arq service runs here."),
}

GROUPS = {
    "enqueue": Command("arqonce.commands.enqueue:build_enqueue_app", "Enqueue a job. Each JOB has its own --help."),
    "dead": Command("arqonce.commands.dead:build_dead_app", "Jobs that failed for good: list, show, retry, discard."),
    "job": Command("arqonce.commands.job:build_job_app", "One job: show where it is, and how it fared."),
    "schedules": Command(
        "arqonce.commands.schedules:build_schedules_app", "Schedules: list, pause, resume, and run one now."
    ),
    "queue": Command("arqonce.commands.queue:build_queue_app", "Queues: pause, resume, list what is paused."),
    "workers": Command("arqonce.commands.workers:build_workers_app", "Live workers: list, drain, undrain."),
    "audit": Command("arqonce.commands.audit:build_audit_app", "Operators' acts: list who did what, and why."),
    "console": Command("arqonce.commands.console:build_console_app", "Serve the page of operators.", has_own_help=True),
}
"""Groups of commands. Theirs is also the help of the group itself."""

MODULES = tuple(command.home.partition(":")[0] for command in (COMMANDS | GROUPS).values())
"""The modules of all commands, for processes that load them before they fork commands."""
