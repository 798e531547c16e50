"""The worker process: claims jobs, runs them, answers. ``arq worker.WorkerSettings`` runs the same jobs."""


def __getattr__(name: str) -> object:
    """Build ``WorkerSettings`` when arq's command line asks for it: importing this package reads no settings."""
    if name == "WorkerSettings":
        from worker.plain_arq import build_worker_settings  # noqa: PLC0415 - importing `worker` must stay free

        return build_worker_settings()
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
