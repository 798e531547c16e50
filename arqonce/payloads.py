"""The base classes of payloads and results. No database, no Redis, no arq.

Renaming a class is safe. Changing a wire name or a field is not: jobs in the old form may still be queued.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, Generic, TypeVar, cast

from pydantic import BaseModel, ConfigDict

ResultT_co = TypeVar("ResultT_co", bound=BaseModel, covariant=True)


class Result(BaseModel):
    """Base class of results. An older producer ignores fields that a newer worker adds."""

    model_config = ConfigDict(frozen=True, from_attributes=True, hide_input_in_errors=True)


class Payload(BaseModel, Generic[ResultT_co]):
    """Base class of payloads. A job with a ``Payload[R]`` returns an ``R``. Unknown fields are rejected.

    Validation errors name fields and never repeat values, which may be personal data.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_by_name=True)

    job_name: ClassVar[str]
    """The name on the wire. It is independent of the class name, so that renaming the class orphans no queued job."""

    @classmethod
    @cache
    def result_type(cls) -> type[ResultT_co]:
        """Return the ``R`` of ``Payload[R]``, also where a generic class of the project's lies in between."""
        known: dict[Any, Any] = {}
        for base in cls.__mro__:
            generic = getattr(base, "__pydantic_generic_metadata__", None)
            if not generic or not generic["args"]:
                continue
            arguments = [_filled(one, known) for one in generic["args"]]
            known |= zip(generic["origin"].__pydantic_generic_metadata__["parameters"], arguments, strict=True)
            if generic["origin"] is Payload:
                break
        (ours,) = Payload.__pydantic_generic_metadata__["parameters"]
        if (result := known.get(ours)) is not None:
            return cast("type[ResultT_co]", result)
        message = f"{cls.__name__} must inherit from Payload[SomeResult], not from Payload"
        raise TypeError(message)


def _filled(argument: Any, known: Mapping[Any, Any]) -> Any:  # noqa: ANN401 - whatever a class can be made generic with
    """Replace type variables by what they stand for, in generic models, too."""
    if isinstance(argument, TypeVar):
        return known.get(argument, argument)
    variables = getattr(argument, "__pydantic_generic_metadata__", {}).get("parameters")
    return argument[tuple(known.get(one, one) for one in variables)] if variables else argument


AnyPayload = Payload[Any]
