"""What every payload and every result is made of. No database, no Redis, no arq.

To rename a class is free; to change a wire name or a field is not: jobs of the old form may still be queued.
"""

from functools import cache
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

ResultT_co = TypeVar("ResultT_co", bound=BaseModel, covariant=True)


class Result(BaseModel):
    """What a job answers. Fields that a newer worker adds are ignored by an older producer."""

    model_config = ConfigDict(frozen=True, from_attributes=True, hide_input_in_errors=True)


class Payload(BaseModel, Generic[ResultT_co]):
    """What a job is asked to do; ``Payload[R]`` answers with an ``R``. Unknown fields are refused.

    Validation errors name fields and never repeat values, which are people's data.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_by_name=True)

    job_name: ClassVar[str]
    """The name on the wire. A string of its own, so that renaming the class orphans no queued job."""

    @classmethod
    @cache
    def result_type(cls) -> type[ResultT_co]:
        """Return the ``R`` of ``Payload[R]``."""
        for base in cls.__mro__:
            arguments = getattr(base, "__pydantic_generic_metadata__", {}).get("args")
            if arguments:
                result: type[ResultT_co] = arguments[0]
                return result
        message = f"{cls.__name__} must inherit from Payload[SomeResult], not from Payload"
        raise TypeError(message)


AnyPayload = Payload[Any]
