"""The worker: arq's ``WorkerSettings``, the hooks that own the engine, and the command ``users-worker``."""


def __getattr__(name: str) -> object:
    """Build ``WorkerSettings`` when arq's command line asks for it: importing this package reads no settings."""
    if name == "WorkerSettings":
        from arqonce import build_worker_settings  # noqa: PLC0415 - importing `worker` must stay cheap
        from worker.application import APPLICATION  # noqa: PLC0415 - likewise

        return build_worker_settings(APPLICATION)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
