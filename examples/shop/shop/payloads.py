"""What can be asked of the shop's jobs, and what they answer. Producers import this."""

from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import Field

from arqonce.failures import JobFailedError
from arqonce.payloads import Payload, Result


class UnknownBuyerError(JobFailedError):
    """No user has this id."""

    code = "unknown_buyer"


class OrderView(Result):
    """A stored order."""

    id: int
    user_id: int
    item: str
    created_at: datetime


class PlaceOrder(Payload[OrderView]):
    """Store an order. Fails with ``UnknownBuyerError`` if there is no such user."""

    job_name: ClassVar[str] = "place_order"
    user_id: int
    item: Annotated[str, Field(min_length=1, max_length=200)]
