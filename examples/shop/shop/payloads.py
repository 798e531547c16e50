"""What can be asked of the shop's jobs, and what they answer. Producers import this."""

from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import Field

from arqonce import JobFailedError, Payload, Result

Text = Annotated[str, Field(min_length=1, max_length=200)]


class AlreadyOrderedError(JobFailedError):
    """The customer has ordered this item before."""

    code = "already_ordered"


class OrderView(Result):
    """A stored order."""

    id: int
    customer: str
    item: str
    created_at: datetime


class PlaceOrder(Payload[OrderView]):
    """Store an order. Fails with ``AlreadyOrderedError`` if the customer has ordered the item before."""

    job_name: ClassVar[str] = "place_order"
    customer: Text
    item: Text
