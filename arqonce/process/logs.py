"""Structured logs, for people on a console or for machines as JSON. Ensures that they contain no personal data.

An error is logged as a diagnosis, without its text.
"""

import logging
import sys
import traceback
from functools import partial
from types import TracebackType

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from arqonce.execution.diagnosis import diagnose
from arqonce.process.log_lines import LineFormatter, escape_controls, showing_any_value
from arqonce.process.log_writer import LogWriter, say, standard_error
from arqonce.process.strangers import log_strangers
from arqonce.process.supervised import Supervised
from arqonce.settings.worker import WorkerSettings


def set_up_logging(settings: WorkerSettings, supervised: Supervised | None = None) -> None:
    """Send everything that the process logs, libraries included, to standard error in one form.

    Each line of a supervised process carries its number as ``process``.
    """
    log_to_stderr(settings.log_format, settings.log_level, process=None if supervised is None else supervised.number)
    _quieten_arq()
    if settings.log_level != "debug":
        _quieten_libraries()


def _quieten_arq() -> None:
    """Let arq log through our handler, without the arguments and errors that it would print."""
    logger = logging.getLogger("arq")
    logger.handlers = []
    logger.propagate = True
    logging.getLogger("arq.worker").addFilter(_is_free_of_arguments)


_TALKATIVE = (
    "aiohttp", "arq", "asyncio", "boto3", "botocore", "google", "grpc", "hpack", "httpcore", "httpx", "openai",
    "requests", "sqlalchemy", "stripe", "urllib3", "websockets",
)  # fmt: skip
"""Libraries whose lines at info tell of each call, with URLs that may be personal data, or repeat ours."""


def _quieten_libraries() -> None:
    """Let them log from warning on, unless the application has set their level."""
    for name in _TALKATIVE:
        if logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(logging.WARNING)


def _is_free_of_arguments(record: logging.LogRecord) -> bool:
    # arq prints a job's arguments and its exceptions' texts; ``execution`` logs the same events without them.
    return record.funcName != "run_job" or "expired" in record.msg or "aborted" in record.msg


def log_to_stderr(log_format: str, level: str, *, process: int | None = None) -> None:
    """Send everything that the process and its libraries log to standard error, in one format.

    Logging never waits for the reader of standard error (``log_writer``). ``log_format`` is ``console``, ``json`` or
    ``auto``: console on a terminal, else JSON.
    """
    shared = _shared_processors(process)
    handler = LogWriter(standard_error())
    handler.setFormatter(
        LineFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(log_format)],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    _enable_loggers()
    log_strangers()
    if sys.excepthook is sys.__excepthook__:  # otherwise the application has its own
        sys.excepthook = _say_error
    logging.getLogger("arqonce.database.loans").setLevel(logging.WARNING)  # the default of SQLAlchemy's own pools
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        # What is below the level costs no more than the call: lines at debug level stand on the way of each job.
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _enable_loggers() -> None:
    """Enable loggers that ``logging.config.dictConfig`` of the application has disabled, as is its default.

    It disables all that were made before, such as asyncio's, which has the errors that nobody awaited.
    """
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.disabled = False


def _say_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Write the traceback of an uncaught error after pending log lines, and at once: Python's own mixes with them."""
    say("".join(traceback.format_exception(kind, error, trace)).removesuffix("\n"))


def _shared_processors(process: int | None) -> list[Processor]:
    return [
        *([] if process is None else [partial(_add_process, process)]),
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        replace_exception,
    ]


def _add_process(number: int, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event.setdefault("process", number)
    return event


def _renderers(log_format: str) -> list[Processor]:
    if log_format == "console" or (log_format == "auto" and _is_terminal()):
        return [escape_controls, showing_any_value(structlog.dev.ConsoleRenderer(colors=_is_terminal()))]
    return [showing_any_value(structlog.processors.JSONRenderer(sort_keys=True, allow_nan=False))]


def _is_terminal() -> bool:
    return standard_error() is not None and sys.stderr.isatty()


def replace_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace an error by its diagnosis."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["error"] = diagnose(error)
    return event
