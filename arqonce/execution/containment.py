"""Confines what a handler raises to its job: SystemExit, KeyboardInterrupt or CancelledError end nothing else."""

import asyncio
from types import TracebackType

from arqonce.failures import text_of

_MOST = 200
"""Most characters of the exception's text that the error message repeats."""


class HandlerEscapeError(RuntimeError):
    """A handler has raised a BaseException that no job may raise, such as SystemExit. The text names the cure."""


class HandlerCancelledError(RuntimeError):
    """A handler has raised CancelledError although its job was not cancelled."""


class _Contained:
    """A context manager that turns each BaseException that is not an Exception into an error of the job.

    It lets a requested cancellation through: the worker stops, the job is aborted, or its deadline has passed. Put it
    directly around application code: an asynchronous context manager in between would misread a GeneratorExit.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Let results and ordinary errors through.

        Raises:
            HandlerEscapeError: in place of SystemExit, KeyboardInterrupt and similar exceptions.
            HandlerCancelledError: in place of a CancelledError that was not requested.
        """
        if error is None or isinstance(error, Exception):
            return
        if not isinstance(error, asyncio.CancelledError):
            raise HandlerEscapeError(_escape(error)) from error
        if not is_cancelled():
            raise HandlerCancelledError(_CANCELLED) from error


CONTAINED = _Contained()
"""The one instance: it has no state."""

_CANCELLED = (
    "the handler raised CancelledError though nobody had cancelled the job: it cancelled itself, or awaited a task or "
    "future that somebody else had cancelled. Catch that where it is awaited"
)


def is_cancelled() -> bool:
    """Return whether cancellation of the current task was requested."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def cancelled_itself() -> HandlerCancelledError:
    """Undo the cancellation of the current task, whose handler called ``cancel`` on it; return the error to raise.

    The caller must know that nobody else cancelled the task.
    """
    task = asyncio.current_task()
    while task is not None and task.uncancel():
        pass
    return HandlerCancelledError(_CANCELLED)


def _escape(error: BaseException) -> str:
    what = f"{type(error).__name__}: {text_of(error, _MOST)}".removesuffix(": ")
    if isinstance(error, SystemExit | KeyboardInterrupt):
        cure = "a handler cannot end the worker: return a result, or raise an Exception that says what is wrong"
    else:
        cure = "let it raise subclasses of Exception: those of BaseException are for the end of a program"
    return f"the handler raised {what}; {cure}"
