"""Shows why a job of a test has failed, in lines that fit on a page: of code and of logs."""

from types import TracebackType

import structlog
from sqlalchemy.exc import DBAPIError

from arqonce.causes import causes
from arqonce.database.faults import sqlstate_of
from arqonce.execution.places import is_of_project
from arqonce.process.logs import replace_exception

_UNDEFINED_TABLE = "42P01"

_TABLES = "a test has the tables of Registry(..., schema=), and those that your fixture jobs_migrate makes"


def shorten(error: BaseException) -> None:
    """Leave out what is not the project's code, of an error and its causes, and the driver's errors below SQLAlchemy's.

    A failed statement has 400 lines of libraries in pytest's output; its text and the handler's line say it all. Where
    a table is missing, a note says which tables a test has.
    """
    for part in list(causes(error)):
        own = _own(part.__traceback__)
        part.__traceback__ = own if own is not None or _says_all(part) else part.__traceback__
        if isinstance(part, DBAPIError):
            if sqlstate_of(part) == _UNDEFINED_TABLE:
                part.add_note(_TABLES)
            part.__cause__, part.__suppress_context__ = None, True
            return


def _says_all(error: BaseException) -> bool:
    """Return whether it is an error of the library, such as one about what a handler returned."""
    return type(error).__module__.startswith("arqonce.")


def _own(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback without the frames of libraries; ``None`` if it has no other."""
    frames: list[TracebackType] = []
    part = trace
    while part is not None:
        if is_of_project(part.tb_frame.f_code.co_filename):
            frames.append(part)
        part = part.tb_next
    found: TracebackType | None = None
    for frame in reversed(frames):
        found = TracebackType(found, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return found


def log_plainly() -> None:
    """Log errors by their type and place, as workers do, unless the project has set up structlog itself.

    Its default prints each error with the variables of all frames: a thousand lines for one statement.
    """
    if not structlog.is_configured():
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                replace_exception,
                structlog.dev.ConsoleRenderer(colors=False),
            ]
        )
