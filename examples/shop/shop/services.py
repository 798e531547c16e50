"""The services that the shop calls: a bank and a mail service. Workers open a client of each, and share it."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from http import HTTPStatus

from aiohttp import ClientConnectionError, ClientSession, ClientTimeout

from arqonce import Resource, RetryAfter
from shop.payloads import PaymentDeclinedError

_LOCAL = "http://127.0.0.1:8070"
"""Where ``tests/stub_services.py`` listens."""


class Service:
    """A service that does a thing once for each key: asked again with the same key, it answers as before."""

    def __init__(self, http: ClientSession) -> None:
        """Call it by ``http``."""
        self._http = http

    async def post(self, path: str, body: dict[str, object], *, key: str) -> str:
        """Return the id of what was made.

        Raises:
            RetryAfter: the service is busy, or cannot be reached: no reason to give up, nor to hurry.
            PaymentDeclinedError: the answer is 402.
            aiohttp.ClientResponseError: the answer is another error; the job is retried, a few times.
        """
        try:
            async with self._http.post(path, json=body, headers={"Idempotency-Key": key}) as answer:
                if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
                    asked = answer.headers.get("Retry-After")
                    raise RetryAfter.from_header(asked, counts=False, reason=f"{path} is busy")
                if answer.status == HTTPStatus.PAYMENT_REQUIRED:
                    raise PaymentDeclinedError("the bank declines the charge")
                answer.raise_for_status()
                return str((await answer.json())["id"])
        except (ClientConnectionError, TimeoutError) as error:
            raise RetryAfter(timedelta(seconds=30), counts=False, reason=f"{path} cannot be reached") from error


class Bank(Service):
    """Charges customers."""

    async def charge(self, customer: str, cents: int, *, key: str) -> str:
        """Charge the customer once for each key; return the charge's id."""
        return await self.post("/charges", {"customer": customer, "cents": cents}, key=key)


class Mailer(Service):
    """Sends mails."""

    async def send(self, customer: str, text: str, *, key: str) -> str:
        """Send the mail once for each key; return the message's id."""
        return await self.post("/messages", {"to": customer, "text": text}, key=key)


@asynccontextmanager
async def open_bank() -> AsyncGenerator[Bank, None]:
    """Open a client of the bank at ``BANK_URL``."""
    async with ClientSession(os.environ.get("BANK_URL", _LOCAL), timeout=ClientTimeout(total=20)) as http:
        yield Bank(http)


@asynccontextmanager
async def open_mailer() -> AsyncGenerator[Mailer, None]:
    """Open a client of the mail service at ``MAIL_URL``."""
    async with ClientSession(os.environ.get("MAIL_URL", _LOCAL), timeout=ClientTimeout(total=20)) as http:
        yield Mailer(http)


BANK = Resource("bank", open_bank)
MAILER = Resource("mailer", open_mailer)
