"""Keeps what a handler raises to its job: an exit, a Ctrl-C of its own or a lost cancellation end nothing else."""

import asyncio
from types import TracebackType

from arqonce.failures import text_of

_MOST = 200
"""Longest text of the exception that is repeated, in characters."""


class HandlerEscapeError(RuntimeError):
    """A handler has raised what no job may raise, such as SystemExit; the text says what, and the cure."""


class HandlerCancelledError(RuntimeError):
    """A handler has raised CancelledError though nobody had cancelled its job."""


class _Contained:
    """A context manager that turns each BaseException which is no Exception into an error of the job.

    A cancellation that somebody has asked for goes through: the end of the worker, an abort, or a deadline. Put it
    closely around the code of others: an asynchronous context manager in between would misread a GeneratorExit.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Let results and ordinary errors through.

        Raises:
            HandlerEscapeError: instead of SystemExit, KeyboardInterrupt and their like.
            HandlerCancelledError: instead of a cancellation that nobody has asked for.
        """
        if error is None or isinstance(error, Exception):
            return
        if not isinstance(error, asyncio.CancelledError):
            raise HandlerEscapeError(_escape(error)) from error
        if not is_cancelled():
            raise HandlerCancelledError(_CANCELLED) from error


CONTAINED = _Contained()
"""Has no state: one for all."""

_CANCELLED = (
    "the handler raised CancelledError though nobody had cancelled the job: it cancelled itself, or awaited a task or "
    "future that somebody else had cancelled. Catch that where it is awaited"
)


def is_cancelled() -> bool:
    """Say whether somebody has asked for the end of the current task."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def cancelled_itself() -> HandlerCancelledError:
    """Return the error of a handler that has called ``cancel`` on the task of its own job, which is cancelled no more.

    The caller knows that nobody else has.
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
