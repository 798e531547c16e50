"""The handlers of many payloads mean what the handlers of one mean, one after the other."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.database.engine import build_engine
from arqonce.database.faults import constraint_of
from arqonce.database.settings import DatabaseSettings
from arqonce.execution.batch import call_batch
from arqonce.failures import JobFailedError
from arqonce.payloads import AnyPayload
from arqonce.spec import JobSpec
from jobs.payloads import CreateUser, FindUser, GetOrCreateUser
from jobs.registry import REGISTRY
from jobs.users import create_user

_EMAILS = [None, *(f"{name}@example.org" for name in ("a", "A", "b", "zoë", "c+d"))]
_ODD_NAMES = ["Jane", "jane", "Łukasz", "李", "o'Brien\\", "NULL", "{a,b}", '"', "e\u0301", "\u00e9"]
_NAMES = st.sampled_from(_ODD_NAMES) | st.text(min_size=1, max_size=20)
_EARLIER = [("Jane", "a@example.org"), ("Jane", None), ("Joe", "b@example.org")]


def _make(kind: type[AnyPayload], **fields: object) -> AnyPayload | None:
    try:
        return kind(**fields)
    except ValidationError:
        return None


def _payloads(kind: type[AnyPayload], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[list[AnyPayload]]:
    one = st.fixed_dictionaries(fields).map(lambda given: _make(kind, **given)).filter(lambda made: made is not None)
    return st.lists(one, min_size=1, max_size=12)  # type: ignore[arg-type] # None is filtered out


_EMAIL = st.sampled_from(_EMAILS)
_WANTED = (
    st.fixed_dictionaries({"name": _NAMES})
    | st.fixed_dictionaries({"email": st.sampled_from(_EMAILS[1:])})
    | st.fixed_dictionaries({"id": st.integers(1, 5) | st.just(2**63 - 1)})
)
_FIND = _WANTED.map(lambda given: _make(FindUser, **given)).filter(lambda made: made is not None)
BATCHES: dict[str, st.SearchStrategy[Any]] = {
    "create_user": _payloads(CreateUser, name=_NAMES, email=_EMAIL),
    "get_or_create_user": _payloads(GetOrCreateUser, name=_NAMES, email=st.sampled_from(_EMAILS[1:])),
    "find_user": st.lists(_FIND, min_size=1, max_size=12),
}


async def _single(session: AsyncSession, spec: JobSpec[Any, Any], payloads: Sequence[AnyPayload]) -> list[Any]:
    answers: list[Any] = []
    for payload in payloads:
        try:
            async with session.begin_nested():
                answers.append(await cast("Any", spec.handler)(session, payload))
        except IntegrityError as error:
            refusal = spec.refusals[constraint_of(error) or ""]
            answers.append(refusal.error(refusal.message))
    return answers


async def _many(session: AsyncSession, spec: JobSpec[Any, Any], payloads: Sequence[AnyPayload]) -> list[Any]:
    return list(await call_batch(spec, session, payloads))


def _comparable(answers: Sequence[Any]) -> list[Any]:
    """Call ids by the order in which they are first told, and leave times out: both differ between any two runs."""
    ids: dict[int, int] = {}

    def tell(value: Any) -> Any:  # noqa: ANN401 - JSON
        match value:
            case JobFailedError():
                return (value.code, value.message)
            case dict():
                return {
                    name: ids.setdefault(item, len(ids)) if name == "id" else tell(item)
                    for name, item in value.items()
                    if name != "created_at"
                }
            case list():
                return [tell(item) for item in value]
            case _:
                return value

    return [tell(one if isinstance(one, JobFailedError) else one.model_dump(mode="json")) for one in answers]


async def _run(url: str, run: Callable[..., Any], name: str, payloads: Sequence[AnyPayload]) -> tuple[Any, Any]:
    """Run on an empty table with some users; return the answers and what is stored afterwards. Leaves nothing."""
    engine = build_engine(DatabaseSettings(url=SecretStr(url)), pool_size=1)
    try:
        async with engine.connect() as connection, connection.begin() as transaction:
            async with AsyncSession(connection, join_transaction_mode="create_savepoint") as session:
                await session.execute(text("TRUNCATE users RESTART IDENTITY"))
                for user, email in _EARLIER:
                    await create_user(session, CreateUser(name=user, email=email))
                answers = await run(session, REGISTRY[name], payloads)
                rows = await session.execute(text('SELECT name, email FROM users ORDER BY name COLLATE "C", email'))
                stored = [tuple(row) for row in rows]
            await transaction.rollback()
    finally:
        await engine.dispose()
    return _comparable(answers), stored


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.usefixtures("sessions")
def test_many_are_answered_as_one_after_the_other(name: str, database: DatabaseSettings) -> None:
    """Names, e-mails, who is new, who shares a row, and every refusal; only the numbers of ids may differ."""
    url = database.url.get_secret_value()

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(payloads=BATCHES[name])
    def check(payloads: list[AnyPayload]) -> None:
        async def both() -> list[Any]:
            return [await _run(url, run, name, payloads) for run in (_single, _many)]

        alone, together = asyncio.run(both())
        assert together == alone

    check()
