"""What can be asked of the shop's jobs, and what they answer. Producers import this."""

from datetime import date, datetime
from typing import Annotated, ClassVar

from pydantic import Field

from arqonce import JobFailedError, Payload, Result

Text = Annotated[str, Field(min_length=1, max_length=200)]
Cents = Annotated[int, Field(gt=0)]


class AlreadyOrderedError(JobFailedError):
    """The customer has ordered this item before."""

    code = "already_ordered"


class PaymentDeclinedError(JobFailedError):
    """The bank declines the charge."""

    code = "payment_declined"


class OrderView(Result):
    """A stored order, and the id of the ``ChargeOrder`` that follows."""

    id: int
    customer: str
    item: str
    created_at: datetime
    charging: str


class PlaceOrder(Payload[OrderView]):
    """Store an order and charge it. Fails with ``AlreadyOrderedError`` if the customer has ordered the item before."""

    job_name: ClassVar[str] = "place_order"
    customer: Text
    item: Text
    cents: Cents


class Charged(Result):
    """The bank's id of the charge, and the id of the ``SendMail`` that follows."""

    charge: str
    mail: str


class ChargeOrder(Payload[Charged]):
    """Charge a stored order. Fails with ``PaymentDeclinedError``: the order then stays without a charge."""

    job_name: ClassVar[str] = "charge_order"
    order: int
    customer: Text
    cents: Cents


class Mailed(Result):
    """The id of the message."""

    message: str


class SendMail(Payload[Mailed]):
    """Send a mail to a customer."""

    job_name: ClassVar[str] = "send_mail"
    customer: Text
    text: str


class Report(Result):
    """What was ordered on a day."""

    day: date
    orders: int
    cents: int


class MakeReport(Payload[Report]):
    """Sum up a day of the shop's time zone, and store the report."""

    job_name: ClassVar[str] = "make_report"
    day: date
