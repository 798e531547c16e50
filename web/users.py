"""The routes of users: reads go to PostgreSQL, writes are jobs."""

from functools import partial

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from db.tables import User
from db.users import user_by_email, user_by_id, users_by_name
from jobs.fields import EmailAddress, UserName
from jobs.payloads import CreateUser, CreateUsers, FoundUsers, StoredUsers, UserView
from web.answers import accept_and_answer, json_answer
from web.problems import ProblemError
from web.reading import read_body, read_query
from web.sessions import read

_LAST_ID = 2**63 - 1
"""The largest id that PostgreSQL can hold."""


class NamedUser(BaseModel):
    """A user found by name."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str


class ByName(BaseModel):
    """The query of ``GET /user``."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: UserName


class ByEmail(BaseModel):
    """The query of ``GET /users``."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    email: EmailAddress


async def show_user_by_name(request: web.Request) -> web.Response:
    """Return the oldest user with this name."""
    name = read_query(request, ByName).name
    found = await read(request, partial(users_by_name, name=name, limit=1))
    if not found:
        raise ProblemError(404, "no user has this name", code="no_such_user")
    return json_answer(NamedUser.model_validate(found[0]))


async def show_user(request: web.Request) -> web.Response:
    """Return the user with this id."""
    user_id = int(request.match_info["id"])
    found = await read(request, partial(user_by_id, user_id=user_id)) if user_id <= _LAST_ID else None
    if found is None:
        raise ProblemError(404, "no user has this id", code="no_such_user")
    return json_answer(_view(found))


async def list_users(request: web.Request) -> web.Response:
    """Return the users with this e-mail: one or none."""
    email = read_query(request, ByEmail).email
    found = await read(request, partial(user_by_email, email=email))
    return json_answer(FoundUsers(users=[] if found is None else [_view(found)]))


async def create_user(request: web.Request) -> web.Response:
    """Enqueue a ``create_user``. Return 201 with the user if the job ends in time, else 202."""
    return await accept_and_answer(request, await read_body(request, CreateUser), _created)


async def create_users(request: web.Request) -> web.Response:
    """Enqueue a ``create_users``. Return 200 with the outcome of each user if the job ends in time, else 202."""
    return await accept_and_answer(request, await read_body(request, CreateUsers), _stored)


def _view(user: User) -> UserView:
    return UserView.model_validate(user)


def _created(user: UserView) -> web.Response:
    response = json_answer(user, status=201)
    response.headers["Location"] = f"/users/{user.id}"
    return response


def _stored(users: StoredUsers) -> web.Response:
    return json_answer(users)
