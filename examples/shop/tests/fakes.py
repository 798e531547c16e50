"""What jobs get in tests in place of the bank and the mail service."""

from shop.services import Bank, Mailer


class FakeBank(Bank):
    """Raises these errors, one a call, and then charges nobody. A key has one answer, as the bank's own have."""

    def __init__(self, *errors: Exception) -> None:
        """Have been called by nobody."""
        self.keys: list[str] = []
        self._errors = list(errors)

    async def charge(self, customer: str, cents: int, *, key: str) -> str:
        """Answer as the bank does."""
        self.keys.append(key)
        if self._errors:
            raise self._errors.pop(0)
        return f"{cents} of {customer}"


class FakeMailer(Mailer):
    """Sends nothing."""

    def __init__(self) -> None:
        """Have no mails."""
        self.mails: list[str] = []

    async def send(self, customer: str, text: str, *, key: str) -> str:
        """Note the mail."""
        self.mails.append(f"{customer}: {text}")
        return f"mail {key}"
