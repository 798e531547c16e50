"""What a route is: a path, what it shows or does, and the right that it needs. There is none without a right."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from arqonce.console.access import Role
from arqonce.console.asked import PageError
from arqonce.console.core import person_of

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, kw_only=True)
class Route:
    """One method of one path."""

    method: str
    path: str
    handler: Handler
    role: Role
    people: bool = False
    """Whether it shows people's data."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer, if the person has the right.

        Raises:
            PageError: the person has not.
        """
        person = person_of(request)
        if not person.may(self.role):
            raise PageError(
                403, "You may not do this", f"{person.name} is a {person.rights.role}; this needs an {self.role}."
            )
        if not person.may(self.role, people=self.people):
            raise PageError(403, "You may not see this", "Payloads, results and messages need the right people.")
        return await self.handler(request)


def page(path: str, handler: Handler) -> Route:
    """Show a page to everybody who is logged in. It changes nothing, and has no person's data."""
    return Route(method="GET", path=path, handler=handler, role=Role.READER)


def preview(path: str, handler: Handler) -> Route:
    """Show an operator what an act would do, with a form that does it. It changes nothing."""
    return Route(method="GET", path=path, handler=handler, role=Role.OPERATOR)


def act(path: str, handler: Handler) -> Route:
    """Do what an operator has confirmed."""
    return Route(method="POST", path=path, handler=handler, role=Role.OPERATOR)


def reveal(path: str, handler: Handler) -> Route:
    """Show people's data to those who may see it. A POST, because the audit gets a row."""
    return Route(method="POST", path=path, handler=handler, role=Role.READER, people=True)
