"""From the order to the mail: each job by itself, and all of them in a real worker."""

from datetime import timedelta

import pytest
from aiohttp import ClientSession
from fakes import FakeBank, FakeMailer
from stub_services import StubServices, serve

from arqonce import JobClient, RetryAfter
from arqonce.testing.run_job import RunJob
from arqonce.testing.worker_process import StartWorker
from shop.payloads import AlreadyOrderedError, ChargeOrder, OrderView, PaymentDeclinedError, PlaceOrder, SendMail
from shop.services import BANK, MAILER, Bank

A_BOOK = PlaceOrder(customer="Jane", item="a book", cents=1250)
SOON = timedelta(seconds=20)


async def test_an_order_is_stored_and_charged_afterwards(run_job: RunJob) -> None:
    """The charge is a job of its own, promised in the transaction of the order."""
    outcome = await run_job.outcome(A_BOOK)

    order = outcome.get()
    assert (order.customer, order.item) == ("Jane", "a book")
    assert outcome.follow_up(ChargeOrder, order=order.id, cents=1250)


async def test_nothing_is_ordered_twice(run_job: RunJob) -> None:
    """The database refuses it, and the producer gets an error of its own class."""
    await run_job(A_BOOK)

    with pytest.raises(AlreadyOrderedError):
        await run_job(A_BOOK)


async def test_who_has_paid_gets_a_mail(run_job: RunJob) -> None:
    """The whole way, with fakes in place of both services."""
    mailer = FakeMailer()
    await run_job(A_BOOK)

    await run_job.drain(resources={BANK: FakeBank(), MAILER: mailer})

    assert mailer.mails == ["Jane: You have paid 12.50 EUR for a book."]


async def test_a_busy_bank_is_asked_again_when_it_says_with_the_same_key(run_job: RunJob) -> None:
    """And no attempt is used up."""
    order, bank = await run_job(A_BOOK), FakeBank(RetryAfter(timedelta(seconds=30), counts=False))

    outcome = await run_job.outcome(_charge_for(order), resources={BANK: bank})

    assert [(one.number, one.delay) for one in outcome.attempts] == [(1, timedelta(seconds=30)), (1, None)]
    assert outcome.follow_up(SendMail, customer="Jane")
    assert bank.keys[0] == bank.keys[1]


async def test_a_bank_that_is_down_is_asked_again_later() -> None:
    """However long it is down: such attempts do not count."""
    async with ClientSession("http://127.0.0.1:1") as http:
        with pytest.raises(RetryAfter, match="/charges cannot be reached") as caught:
            await Bank(http).charge("Jane", 1250, key="k")

    assert not caught.value.counts


async def test_who_cannot_pay_gets_no_mail(run_job: RunJob) -> None:
    """What the bank says ends the job, and the producer gets it."""
    order, bank = await run_job(A_BOOK), FakeBank(PaymentDeclinedError("no"))

    with pytest.raises(PaymentDeclinedError):
        await run_job(_charge_for(order), resources={BANK: bank})

    assert [job.name for job in await run_job.promised()] == ["charge_order"]  # that of the order


def _charge_for(order: OrderView) -> ChargeOrder:
    return ChargeOrder(order=order.id, customer=order.customer, cents=1250)


async def test_a_worker_does_it_all(start_worker: StartWorker, jobs_redis_url: str) -> None:
    """From two queues, over HTTP, to a bank that is busy at first and charges a customer once at a time."""
    services, items = StubServices(busy=1), ["a book", "a pen", "a lamp"]
    async with serve(services) as url, JobClient(jobs_redis_url, queue="urgent") as client:
        placed = await client.enqueue_many([A_BOOK.model_copy(update={"item": item}) for item in items])
        start_worker(WORKER_QUEUE="urgent,arq:queue", BANK_URL=url, MAIL_URL=url)
        for order in placed:
            charging = (await order.result(timeout=SOON)).charging
            charged = await client.handle(ChargeOrder, charging, is_promised=True).result(timeout=SOON)
            await client.handle(SendMail, charged.mail, is_promised=True).result(timeout=SOON)

    assert sorted(services.mails.values()) == [f"Jane: You have paid 12.50 EUR for {item}." for item in sorted(items)]
    assert list(services.charges.values()) == ["Jane"] * 3
    assert services.most_at_once["Jane"] == 1
