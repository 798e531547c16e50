"""Checks and serializes a job's result before its transaction commits, and builds its receipt."""

from typing import Any, NamedTuple, TypeAlias

from pydantic import BaseModel

from arqonce.execution.delivery import AnySpec, Delivery
from arqonce.execution.verdict import RetryLater, WrongResultError
from arqonce.failures import InvalidMessageError, JobFailedError
from arqonce.ledger.receipts import Receipt
from arqonce.payloads import AnyPayload
from arqonce.wire.codec import encode_result
from arqonce.wire.request import request_hash
from arqonce.wire.round_trip import CURE, read_back, traits_of
from arqonce.work import Again


class Answer(NamedTuple):
    """How a job has ended, and the tag of the request that this answers; ``None`` if the request cannot be read."""

    value: dict[str, Any] | JobFailedError
    tag: str | None = None
    text: str | None = None
    """The result as JSON text, if there is one."""


Outcome: TypeAlias = Answer | RetryLater | Again
"""What becomes of a job that runs together with others."""


class Dumped(NamedTuple):
    """A result as JSON types (``result``) and as JSON text (``text``)."""

    result: dict[str, Any]
    text: str


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
        result=None if dumped is None else dumped.result,
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
    try:
        dumped: dict[str, Any] = result.model_dump(mode="json")
        encoded = encode_result(dumped)
    except (InvalidMessageError, ValueError, TypeError) as error:  # the class's own serializers may raise, too
        reason = str(error) if isinstance(error, InvalidMessageError) else f"{type(error).__name__} in its serializer"
        raise WrongResultError(f"the result of {spec.name} cannot be stored: {reason}") from error
    kind: type[BaseModel] = type(result)
    if traits_of(kind).may_change and isinstance(changed := read_back(result, dumped), list):
        named = ", ".join(f"{kind.__name__}.{name[:60]}" for name in changed) or kind.__name__
        raise WrongResultError(f"producers of {spec.name} would not get what is returned in {named}: {CURE}")
    return Dumped(dumped, encoded)
