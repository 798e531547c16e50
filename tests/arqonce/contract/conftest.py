"""Contracts of small registries, for tests that compare two of them."""

from typing import Any, Protocol, cast

import pytest
from pydantic import ConfigDict, create_model
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.contract.document import build_document
from arqonce.payloads import AnyPayload, Payload, Result
from arqonce.spec import JobSpec, Registry

Fields = dict[str, Any]


class Contract(Protocol):
    """Builds the contract of one job, of the fields of its payload and of its result."""

    def __call__(
        self,
        takes: Fields,
        answers: Fields | None = None,
        *,
        name: str = "order",
        former_names: tuple[str, ...] = (),
        extra: str = "forbid",
    ) -> dict[str, Any]:
        """Build it. Fields are those of ``pydantic.create_model``: type and default."""
        ...


@pytest.fixture
def contract() -> Contract:
    """Return the function that builds a contract."""
    return _contract


def _contract(
    takes: Fields,
    answers: Fields | None = None,
    *,
    name: str = "order",
    former_names: tuple[str, ...] = (),
    extra: str = "forbid",
) -> dict[str, Any]:
    answer = create_model("Ordered", __base__=Result, **answers or {})
    base = type("Base", (cast("Any", Payload)[answer],), {"model_config": ConfigDict(extra=cast("Any", extra))})
    payload: Any = cast("Any", create_model)("Order", __base__=base, **takes)
    payload.job_name = name
    return build_document(
        Registry(JobSpec(payload, _handle, former_names=former_names)), title="users-worker", version="1.0"
    )


async def _handle(_session: AsyncSession, _payload: AnyPayload) -> Result:
    return Result()
