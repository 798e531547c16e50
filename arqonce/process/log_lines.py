"""Forms one line of each record, whatever is in it. Owns what is written where a value or a message cannot be shown.

What logging itself writes there is a page to standard error, with the values.
"""

import logging
from pathlib import Path
from typing import cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from arqonce.execution.diagnosis import diagnose

LONGEST = 256 * 1024
"""Most characters of a line. A longer one could not be cut and still be JSON."""

_FOLDERS = 2
"""Last parts of a path that are shown, as in a diagnosis."""


class LineFormatter(structlog.stdlib.ProcessorFormatter):
    """Formats structlog's records and those of ``logging``; never raises."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line; where it has none, one that says at which place in the code it was logged."""
        try:
            line = super().format(record)
        except Exception as error:  # noqa: BLE001 - arguments that do not fit the message, or any value's own methods
            return super().format(_in_place_of(record, diagnose(error)))
        if len(line) > LONGEST:
            return super().format(_in_place_of(record, f"it has {len(line)} characters"))
        return line


def _in_place_of(record: logging.LogRecord, reason: str) -> logging.LogRecord:
    text = "a line of the log cannot be shown, from %s:%d: %s"
    place = "/".join(Path(record.pathname).parts[-_FOLDERS:])
    arguments = (place, record.lineno, reason)
    return logging.LogRecord(record.name, record.levelno, record.pathname, record.lineno, text, arguments, None)


def showing_any_value(render: Processor) -> Processor:
    """Return a renderer that shows values which ``render`` cannot as their representation."""

    def rendered(logger: WrappedLogger, method: str, event: EventDict) -> str:
        try:
            return cast("str", render(logger, method, dict(event)))
        except Exception:  # noqa: BLE001 - whatever a value's own methods raise
            plain = {str(name): _plain(value) for name, value in event.items()}
            return cast("str", render(logger, method, plain))

    return rendered


def _plain(value: object) -> object:
    if value is None or isinstance(value, str | int):
        return value
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - see above
        return f"<{type(value).__qualname__}>"


def escape_controls(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Show characters that would begin a line, or control a terminal, as their escapes."""
    return {name: _escaped(value) if isinstance(value, str) else value for name, value in event.items()}


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
