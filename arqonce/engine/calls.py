"""What a run calls: a function of arq's for one job, or one of ours for many. Runs nothing."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from arq.worker import Function

from arqonce.execution.again import Again


class Call(NamedTuple):
    """What the message asks for."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    attempt: int
    enqueued_ms: int

    excused: int = 0
    """How many of the attempts do not count towards the limit: another job may have killed their workers."""

    @property
    def counted(self) -> int:
        """The attempt's number among those that count."""
        return self.attempt - self.excused


Answer = dict[str, Any] | Exception | Again
"""A result, a failure or arq's ``Retry``, or that the job has to run again."""


@dataclass
class RecordingFunction(Function):
    """A function of arq's that ends a job only once the end is on record, and limits its own time.

    So nothing else may end its job: not a timer of the worker's, and not an error that it has not decided on.
    """


@dataclass
class BatchFunction(RecordingFunction):
    """A function of arq's that can also be called for many jobs at once. Arq's own class only calls it for one."""

    together: Callable[[dict[Any, Any], Sequence["BatchCall"]], Awaitable[list[Answer]]]
    """Takes the worker's context; answers in the order given, and raises nothing but cancellation."""

    most: int
    """How many jobs it takes at once."""


class BatchCall(NamedTuple):
    """One job of a batch."""

    job_id: str
    call: Call
