"""A project's own worker.py, as nearly every arq project has one: beside it are jobs/, db/ and web/."""

from typing import Any, ClassVar

from arq.connections import RedisSettings

from jobs import REDIS_URL, greet  # type: ignore[attr-defined] # the jobs of the sample project

OWNER = "the service"


class WorkerSettings:
    """What ``arq worker.WorkerSettings`` is to find."""

    functions: ClassVar[list[Any]] = [greet]
    redis_settings = RedisSettings.from_dsn(REDIS_URL)
