"""Reads the settings class of an arq service, as arq's command line does, and what of it our worker is made with."""

import importlib
import inspect
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import structlog
from arq.connections import RedisSettings
from arq.constants import default_queue_name
from arq.worker import Worker as ArqWorker
from arq.worker import func

from arqonce.arq.functions import decode_undecided
from arqonce.arq.setting_types import require_types
from arqonce.usage import UsageError
from arqonce.wire.codec import PICKLE, decode, encode

PARAMETERS = frozenset(inspect.signature(ArqWorker).parameters)
"""What arq reads of a settings class."""

_OURS = frozenset({"redis_settings", "redis_pool", "burst", "handle_signals", "job_serializer", "job_deserializer"})
"""Of these, what is not passed on as it is."""

_MAX_JOBS = 10
"""arq's default."""

_JOB_TIMEOUT = timedelta(minutes=5)
"""arq's default."""

_SPARE = 10
"""Connections to Redis beyond one for each job."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.arq.service")

Serializer = Callable[[dict[str, Any]], bytes]
Deserializer = Callable[[bytes], dict[str, Any]]


@dataclass(frozen=True)
class Service:
    """A service's settings."""

    name: str
    """The class, as it was named."""

    settings: Mapping[str, Any]
    """Its attributes under arq's names, inherited ones included."""

    others: frozenset[str]
    """Its public attributes that arq does not know."""

    inherited: frozenset[str] = frozenset()
    """Which of the settings its class has inherited."""

    @property
    def queue(self) -> str:
        """The queue's name."""
        return str(self.settings.get("queue_name") or default_queue_name)

    def arguments(self) -> dict[str, Any]:
        """Return the worker's arguments, without those about Redis, signals and serializers."""
        return {name: value for name, value in self.settings.items() if name not in _OURS}

    def serializers(self, *, accepts_pickle: bool) -> tuple[Serializer, Deserializer]:
        """Return the service's own serializers; else JSON or, if it accepts pickles, those and JSON, as it is read.

        A pickle can run any code in the worker: whoever can write to Redis can.
        """
        own = self.settings.get("job_serializer"), self.settings.get("job_deserializer")
        if not accepts_pickle:
            return own[0] or encode, own[1] or decode_undecided
        _log.warning("pickles are accepted: whoever can write to Redis can run code in this worker")
        return PickleOrJson(own[0]), _either(own[1] or decode)

    def redis_url(self) -> str | None:
        """Return the URL of the service's Redis; ``None`` if its settings name none.

        Raises:
            UsageError: it brings a pool instead of ``redis_settings``.
        """
        if self.settings.get("redis_pool") is not None:
            raise UsageError(f"{self.name} has a redis_pool: give it redis_settings, each process opens its own pool")
        settings = self.settings.get("redis_settings")
        return None if settings is None else url_of(settings)

    @property
    def longest_timeout(self) -> timedelta:
        """The longest time that one of its functions and cron jobs may take."""
        usual = self.settings.get("job_timeout") or _JOB_TIMEOUT
        all_of_them = [*(self.settings.get("functions") or ()), *(self.settings.get("cron_jobs") or ())]
        own = (getattr(one, "timeout_s", None) for one in all_of_them)
        seconds = [usual, *(timeout for timeout in own if timeout is not None)]
        return max(one if isinstance(one, timedelta) else timedelta(seconds=float(one)) for one in seconds)

    @property
    def max_jobs(self) -> int:
        """How many jobs may run at once."""
        return int(self.settings.get("max_jobs") or _MAX_JOBS)

    @property
    def connections(self) -> int:
        """How many connections to Redis a worker may need."""
        return self.max_jobs + _SPARE


def load_service(path: str) -> Service:
    """Import a settings class, ``module.Class`` or ``module:Class``; the working folder is searched first.

    Raises:
        UsageError: there is no such class, it is no Python, or a setting has a wrong type. The text says which.
    """
    with suppress(FileNotFoundError):  # a deploy may have removed the folder
        sys.path.insert(0, str(Path.cwd()))
    module, _, name = path.strip().replace(":", ".").rpartition(".")
    if not module or not name.isidentifier() or module.startswith(".") or "/" in module or name == "py":
        raise UsageError(f"{path!r} names no settings class: write module.ClassName, such as app.worker.WorkerSettings")
    try:
        home = importlib.import_module(module)  # any name that a file may have, such as my-worker, as arq does
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the service's own import
        raise UsageError(f"there is no module {error.name}: run this in the folder that it is in") from None
    except SyntaxError as error:
        raise UsageError(f"{error.filename}, line {error.lineno}: {error.msg}") from None
    if not hasattr(home, name):
        raise UsageError(f"{module} has no {name}")
    found = getattr(home, name)
    settings = dict(found) if isinstance(found, Mapping) else _attributes(found)
    known = {key: value for key, value in settings.items() if key in PARAMETERS}
    if not known.get("functions") and not known.get("cron_jobs"):
        raise UsageError(f"{path} has neither functions nor cron_jobs: is it the settings class of an arq worker?")
    known |= {key: list(value) for key, value in known.items() if isinstance(value, Iterator)}
    try:
        require_types(known)
        list(map(func, known.get("functions") or ()))  # arq imports those that are given by name
    except (ImportError, RuntimeError, TypeError) as error:
        raise UsageError(f"{path}: {error}") from None
    own = known.keys() if isinstance(found, Mapping) else getattr(found, "__dict__", known).keys()
    return Service(path, known, frozenset(settings.keys() - PARAMETERS), frozenset(known.keys() - own))


def _attributes(found: object) -> dict[str, Any]:
    """Return an object's public attributes; of those that arq does not know, which may be properties, the names alone.

    arq looks at a class's own alone, and passes inherited ones over in silence.
    """
    names = [name for name in dir(found) if not name.startswith("_")]
    return {name: getattr(found, name) if name in PARAMETERS else None for name in names}


class PickleOrJson:
    """Writes what the service writes, which is pickles by default; a result in the form of its job's message."""

    def __init__(self, own: Serializer | None = None) -> None:
        """Take the service's own serializer, if it has one."""
        self._own = own

    def __call__(self, message: dict[str, Any]) -> bytes:
        """Write a message for workers of either kind, and for arq's own."""
        return pickle.dumps(message) if self._own is None else self._own(message)

    def of(self, asked: bytes | None) -> Serializer:
        """Return what writes the result of a job with this message."""
        if asked is None:
            return self
        return pickle.dumps if asked.startswith(PICKLE) else self._own or encode


def _either(other: Deserializer) -> Deserializer:
    def read(data: bytes) -> dict[str, Any]:
        message: dict[str, Any] = pickle.loads(data) if data.startswith(PICKLE) else other(data)  # noqa: S301 - asked for by a flag
        return message

    return read


def url_of(settings: RedisSettings) -> str:
    """Return REDIS_URL for arq's connection settings."""
    has_user = settings.username or settings.password  # a user may need no password
    user = f"{_quoted(settings.username)}:{_quoted(settings.password)}@" if has_user else ""
    if settings.unix_socket_path:
        return f"unix://{user}{quote(settings.unix_socket_path)}?{urlencode({'db': settings.database})}"
    scheme = "rediss" if settings.ssl else "redis"
    names = ("ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_ca_data")
    options = {name: getattr(settings, name) for name in names if settings.ssl and getattr(settings, name)}
    if settings.ssl and settings.ssl_cert_reqs != "required":
        options["ssl_cert_reqs"] = settings.ssl_cert_reqs
    query = f"?{urlencode(options)}" if options else ""
    if settings.sentinel or not isinstance(settings.host, str | None):
        places = settings.host if not isinstance(settings.host, str) else [(settings.host, settings.port)]
        hosts = ",".join(f"{_bracketed(host)}:{port}" for host, port in places)
        return f"{scheme}+sentinel://{user}{hosts}/{_quoted(settings.sentinel_master)}/{settings.database}{query}"
    return f"{scheme}://{user}{_bracketed(settings.host or 'localhost')}:{settings.port}/{settings.database}{query}"


def _quoted(text: str | None) -> str:
    return quote(text or "", safe="")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
