"""The worker's logs: ours, and arq's without the arguments and errors that it would print."""

import logging

from arqonce.process.logs import log_to_stderr
from arqonce.settings.worker import WorkerSettings


def set_up_logging(settings: WorkerSettings) -> None:
    """Send everything that the process logs, libraries included, to standard error in one form."""
    log_to_stderr(settings.log_format, settings.log_level)
    _quieten_arq()


def _quieten_arq() -> None:
    logger = logging.getLogger("arq")
    logger.handlers = []
    logger.propagate = True
    logging.getLogger("arq.worker").addFilter(_is_free_of_arguments)


def _is_free_of_arguments(record: logging.LogRecord) -> bool:
    # arq prints a job's arguments and its exceptions' texts; dispatch logs the same events without them.
    return record.funcName != "run_job" or "expired" in record.msg or "aborted" in record.msg
