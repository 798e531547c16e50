"""Checks and serializes a job's result before its transaction commits, and builds its receipt."""

from asyncio import CancelledError
from typing import Any, NamedTuple, TypeAlias

from pydantic import BaseModel
from pydantic_core import from_json

from arqonce.execution.delivery import AnySpec, Delivery
from arqonce.execution.verdict import RetryLater, WrongResultError
from arqonce.failures import InvalidMessageError, JobFailedError
from arqonce.ledger.receipts import Receipt
from arqonce.payloads import AnyPayload
from arqonce.wire.codec import encode_result, is_surely_fit
from arqonce.wire.request import request_hash
from arqonce.wire.round_trip import may_change, not_dumped, read_back, why_changed
from arqonce.work import Again


class Dumped(NamedTuple):
    """A result as JSON text and, if it was needed on the way, as JSON types."""

    text: str
    value: dict[str, Any] | None = None

    @property
    def result(self) -> dict[str, Any]:
        """The result as JSON types."""
        if self.value is not None:
            return self.value
        read: dict[str, Any] = from_json(self.text)
        return read


class Answer(NamedTuple):
    """How a job has ended, and the tag of the request that this answers; ``None`` if the request cannot be read."""

    end: Dumped | JobFailedError | CancelledError
    tag: str | None = None

    @property
    def value(self) -> dict[str, Any] | JobFailedError | CancelledError:
        """The result as JSON types, or the failure."""
        return self.end.result if isinstance(self.end, Dumped) else self.end


JointOutcome: TypeAlias = Answer | RetryLater | Again
"""What becomes of a job that runs together with others."""


def build_receipt(
    spec: AnySpec,
    delivery: Delivery,
    payload: AnyPayload,
    *,
    dumped: Dumped | None = None,
    failure: dict[str, str] | None = None,
) -> Receipt:
    """Build the receipt of a job that ended with a result or with a failure; pass exactly one of the two."""
    return Receipt(
        job_id=delivery.job_id,
        job_name=spec.name,
        request_hash=request_hash(payload),
        result=None if dumped is None else dumped.value,
        result_json=None if dumped is None else dumped.text,
        failure=failure,
        attempt=delivery.attempt,
    )


def dump_result(spec: AnySpec, result: Any) -> Dumped:  # noqa: ANN401 - whatever the handler returned
    """Serialize the result and check its size. Call before the commit: a result that cannot be sent must not commit.

    Raises:
        WrongResultError: it is not of the payload's result type, or it cannot be stored or sent.
    """
    expected = spec.payload.result_type()
    if not isinstance(result, expected):
        message = f"the handler of {spec.name} returned {type(result).__name__}, not {expected.__name__}"
        raise WrongResultError(f"{message}: return the result type that its payload declares")
    if (text := _dump_at_once(result)) is not None:
        return Dumped(text)
    loss = f"producers of {spec.name} would not get what is returned in"
    try:
        dumped: dict[str, Any] = result.model_dump(mode="json", warnings=False)
    except Exception as error:  # the class's own serializers may raise anything
        raise WrongResultError(why_changed(result, not_dumped(result), loss)) from error
    try:
        encoded = encode_result(dumped)
    except InvalidMessageError as error:
        raise WrongResultError(f"the result of {spec.name} cannot be stored: {error}") from error
    if isinstance(changed := read_back(result, dumped), list):
        raise WrongResultError(why_changed(result, changed, loss))
    return Dumped(encoded, dumped)


def _dump_at_once(result: BaseModel) -> str | None:
    """Return a result as JSON, in half the time, if nothing can be wrong with it; ``None`` if it must be looked at."""
    kind = type(result)
    if kind.model_dump is not BaseModel.model_dump or may_change(result):
        return None
    try:
        data = kind.__pydantic_serializer__.to_json(result, warnings=False)
        if not is_surely_fit(data):
            return None
        kind.__pydantic_validator__.validate_json(data)  # model_construct and model_copy validate nothing
    except ValueError:
        return None
    return data.decode()
