"""Builds the result of a recorded job, as the message that a worker would write into Redis."""

from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from arqonce.payloads import AnyPayload
from arqonce.wire.codec import decode, encode
from arqonce.wire.keys import now_ms
from arqonce.wire.request import payload_tag


@dataclass(frozen=True)
class Answer:
    """The result or the failure of a job."""

    value: Any
    is_success: bool
    tag: str | None = None
    """Tag of the answered request, by which a producer detects that its key belongs to another request."""

    @classmethod
    def of(cls, payload: type[AnyPayload], answer: object) -> "Answer":
        """Wrap the result or the exception with which a job of this kind is to end.

        Raises:
            TypeError: ``answer`` is neither an exception nor of the payload's result type.
        """
        if isinstance(answer, type):
            raise TypeError(f"an answer must be an instance, not the class {answer.__name__}")
        if isinstance(answer, BaseException):
            return cls(answer, is_success=False)
        kind = payload.result_type()
        try:
            kind.model_validate(decode(encode({"r": answer}))["r"])
        except ValidationError:
            text = f"{payload.__name__} answers with a {kind.__name__} or fails, not with a {type(answer).__name__}"
            raise TypeError(text) from None
        return cls(answer, is_success=True)

    def to(self, payload: AnyPayload) -> "Answer":
        """Return the answer with the tag of this request."""
        return replace(self, tag=payload_tag(payload))

    def message(self, job: bytes, *, attempts: int) -> bytes:
        """Encode the answer as the result of the job with the message ``job``."""
        call, now = decode(job), now_ms()
        times = {"et": call["et"], "st": now, "ft": now}
        request = {} if self.tag is None else {"h": self.tag}
        return encode({"t": attempts, "f": call["f"], "s": self.is_success, "r": self.value} | times | request)
