"""Lines of Python itself, made fit for our logs: its warnings, and errors that nobody awaited or could catch.

Their texts repeat values: of a field that pydantic finds wrong, of the arguments of a callback, of an exception.
"""

import logging
import re
import sys
import threading
import warnings
from pathlib import Path
from typing import TextIO

import structlog

_SPEAKING = (
    DeprecationWarning,
    PendingDeprecationWarning,
    FutureWarning,
    ImportWarning,
    ResourceWarning,
    RuntimeWarning,
)
"""Categories of warnings about code: their texts hold no values of people."""

_OUTCOME = re.compile(r" (?:result|exception)=.*(?=> took )", re.DOTALL)
"""What a task returned or raised, in asyncio's representation of it."""

_FOLDERS = 2
"""Last parts of a path that are shown, as in a diagnosis."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("py.warnings")
_log_lost: structlog.stdlib.BoundLogger = structlog.get_logger("py.errors")


def log_strangers() -> None:
    """Let Python's warnings and lost errors be lines of the log, and asyncio's lines hold no values."""
    logging.captureWarnings(capture=True)  # a library that does this later changes nothing any more
    warnings.showwarning = _show_warning
    if threading.excepthook is threading.__excepthook__:  # otherwise the application has its own
        threading.excepthook = _log_thread
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _log_unraisable
    logging.getLogger("asyncio").addFilter(_without_values)


def _show_warning(  # noqa: PLR0913, PLR0917 - the signature of warnings.showwarning
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if file is not None:
        file.write(warnings.formatwarning(message, category, filename, lineno, line))
        return
    text = {"text": str(message)} if issubclass(category, _SPEAKING) else {}
    at = f"{'/'.join(Path(filename).parts[-_FOLDERS:])}:{lineno}"
    _log.warning("Python warns", category=category.__name__, at=at, **text)


def _log_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit:  # it ends its thread, and is no error
        name = None if args.thread is None else args.thread.name
        _log_lost.error("a thread has failed", thread=name, exc_info=args.exc_value)


def _log_unraisable(args: "sys.UnraisableHookArgs") -> None:
    """Log an error in a finalizer, or in a callback of C code. The object's representation may hold values."""
    name = getattr(args.object, "__qualname__", type(args.object).__qualname__)
    _log_lost.error("Python cannot raise an error", at=name, exc_info=args.exc_value)


def _without_values(record: logging.LogRecord) -> bool:
    """Keep the first line, up to the arguments of a callback, and no task's result; the error itself is diagnosed."""
    if record.levelno >= logging.ERROR:
        record.msg, record.args = record.getMessage().partition("\n")[0].partition("(")[0], ()
    elif record.levelno == logging.WARNING:  # in asyncio's debug mode: which task or callback was slow
        record.msg, record.args = _OUTCOME.sub("", record.getMessage()), ()
    return True
