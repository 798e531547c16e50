"""How a recorded job ends: as the message that a worker would leave in Redis."""

from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from arqonce.payloads import AnyPayload
from arqonce.wire.codec import decode, encode
from arqonce.wire.keys import now_ms, payload_tag


@dataclass(frozen=True)
class Answer:
    """A result or a failure."""

    value: Any
    is_success: bool
    tag: str | None = None
    """Of the request that it answers, so that who has used its key for another one is told."""

    @classmethod
    def of(cls, payload: type[AnyPayload], answer: object) -> "Answer":
        """Take what a job of this kind is to answer.

        Raises:
            TypeError: it is no exception, and not what this kind of job answers.
        """
        if isinstance(answer, type):
            raise TypeError(f"an answer is an instance, and this is the class {answer.__name__}")
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
        """Return the answer to this request."""
        return replace(self, tag=payload_tag(payload))

    def message(self, job: bytes, *, attempts: int) -> bytes:
        """Write it as the result of this job."""
        call, now = decode(job), now_ms()
        times = {"et": call["et"], "st": now, "ft": now}
        request = {} if self.tag is None else {"h": self.tag}
        return encode({"t": attempts, "f": call["f"], "s": self.is_success, "r": self.value} | times | request)
