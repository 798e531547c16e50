"""``health``: reports whether the worker of this machine or container is healthy."""

from arqonce.environment import SettingsError
from arqonce.process.health_file import exit_with_health
from arqonce.settings.worker import WorkerSettings


def health() -> None:
    """Exit with 0 if the worker that writes WORKER_HEALTH_FILE is alive and reaches both servers, else with 1.

    Meant for a container's health check: it reports on this worker, not on others of the same queue.
    """
    file = WorkerSettings.load().health_file
    if file is None:
        raise SettingsError(
            "WORKER_HEALTH_FILE: is not set. Set it to the same file for the worker and for this command."
        )
    exit_with_health(file)
