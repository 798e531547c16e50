"""What a job answers: checked, written and measured before its transaction commits, and its receipt."""

from typing import Any, NamedTuple

from arqonce.execution.delivery import AnySpec, Delivery
from arqonce.execution.verdict import WrongResultError
from arqonce.failures import InvalidMessageError
from arqonce.ledger.receipts import Receipt
from arqonce.payloads import AnyPayload
from arqonce.wire.codec import encode_result
from arqonce.wire.keys import request_hash


class Dumped(NamedTuple):
    """A result in JSON's types, and as JSON."""

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
    """Say how the job ended: with a result or with a failure."""
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
    """Return the result in JSON's types, written and measured: what cannot be answered must not be committed.

    Raises:
        WrongResultError: it is not what the payload promises, or cannot be stored or sent.
    """
    expected = spec.payload.result_type()
    if not isinstance(result, expected):
        message = f"the handler of {spec.name} returned {type(result).__name__}, not {expected.__name__}"
        raise WrongResultError(f"{message}: let it return what its payload promises")
    try:
        dumped: dict[str, Any] = result.model_dump(mode="json")
        return Dumped(dumped, encode_result(dumped))
    except (InvalidMessageError, ValueError, TypeError) as error:  # a serializer of the class's own may raise, too
        reason = (
            str(error) if isinstance(error, InvalidMessageError) else f"{type(error).__name__} while it was written"
        )
        raise WrongResultError(f"the result of {spec.name} cannot be answered: {reason}") from error
