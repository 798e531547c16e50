"""Lines of Python itself, made fit for our logs: its warnings, and what asyncio says of errors that nobody awaited.

Their texts repeat values: of a field that pydantic finds wrong, of the arguments of a callback, of an exception.
"""

import logging
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

_FOLDERS = 2
"""Last parts of a path that are shown, as in a diagnosis."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("py.warnings")


def log_strangers() -> None:
    """Let Python's warnings be lines of the log, and asyncio's lines say what happened without values."""
    warnings.showwarning = _show_warning
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


def _without_values(record: logging.LogRecord) -> bool:
    """Keep the first line, up to the arguments of a callback; the error itself is diagnosed."""
    if record.levelno >= logging.ERROR:
        record.msg, record.args = record.getMessage().partition("\n")[0].partition("(")[0], ()
    return True
