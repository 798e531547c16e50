"""What a limit may be, and which permits a job needs. Needs no server."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce import JobSpec, Limit, Payload, Registry, Result

_MINUTE = timedelta(minutes=1)


class Done(Result):
    """Nothing."""


class Charge(Payload[Done]):
    """Charge a customer."""

    job_name: ClassVar[str] = "charge"
    customer: str
    cents: int = 1
    tags: tuple[str, ...] = ()
    region: str | None = None


class Refund(Charge):
    """The same, of another kind."""

    job_name: ClassVar[str] = "refund"


async def do(_session: AsyncSession, _payload: Charge) -> Done:
    """Do nothing."""
    return Done()


def _first_tag(payload: Charge) -> str:
    return payload.tags[0]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "either Limit"),
        ({"concurrency": 3, "rate": 3, "per": _MINUTE}, "either Limit"),
        ({"rate": 3}, "either Limit"),
        ({"concurrency": 3, "per": _MINUTE}, "either Limit"),
        ({"concurrency": 0}, "from 1 to 10,000"),
        ({"concurrency": True}, "from 1 to 10,000"),
        ({"concurrency": 2.5}, "from 1 to 10,000"),
        ({"rate": 10_001, "per": _MINUTE}, "from 1 to 10,000"),
        ({"rate": 3, "per": 60}, "per of a Limit is a timedelta"),
        ({"rate": 3, "per": timedelta(milliseconds=99)}, "from 100 ms to a day"),
        ({"rate": 3, "per": timedelta(days=2)}, "from 100 ms to a day"),
        ({"concurrency": 3, "by": 7}, "by of a Limit is the name of a field"),
    ],
)
def test_a_wrong_limit_is_refused_where_it_is_made(arguments: dict[str, Any], problem: str) -> None:
    """With what is right."""
    with pytest.raises(TypeError, match=problem):
        Limit(**arguments)


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ([Limit(concurrency=3, by="client")], "by='client' .* is no field of Charge; it has: customer, cents, tags"),
        (Limit(concurrency=3), "limits is a list"),
        ([3], "limits is a list"),
        ("customer", "limits is a list"),
        ([Limit(concurrency=3), Limit(concurrency=5)], "two limits are of the same thing, concurrency:"),
        ([Limit(rate=3, per=_MINUTE, by="customer")] * 2, "the same thing, the rate in 0:01:00 by customer:"),
        ([Limit(concurrency=3, by=lambda _: 1), Limit(concurrency=3, by=lambda _: 2)], "name the functions"),
    ],
)
def test_a_limit_that_does_not_fit_the_job_is_refused_at_registration(limits: Any, problem: str) -> None:  # noqa: ANN401 - what is wrong
    """With the job's name."""
    with pytest.raises(TypeError, match=f"the job charge: .*{problem}"):
        JobSpec(Charge, do, limits=limits)


def _keys(limits: Sequence[Limit], *payloads: Charge) -> list[tuple[str, ...]]:
    return [tuple(limit.permit(payload).key for limit in limits) for payload in payloads]


def test_jobs_with_the_same_value_share_a_permit_and_others_do_not() -> None:
    """Of one kind: another kind has its own. A number is no string, and nothing is a value as any other."""
    by = [Limit(concurrency=1, by=name) for name in ("customer", "cents", "region")]

    a, same, b = _keys(by, Charge(customer="1", cents=1), Charge(customer="1", cents=1), Charge(customer="2", cents=2))
    other_kind = _keys(by, Refund(customer="1", cents=1))[0]
    none, empty = _keys(by, Charge(customer="", region=None), Charge(customer="", region=""))

    assert a == same
    assert (a[0] != b[0], a[1] != b[1], a[2] == b[2]) == (True, True, True)
    assert not set(a) & set(other_kind)
    assert none[2] != empty[2]


@given(st.lists(st.text(max_size=50), min_size=2, max_size=20, unique=True))
def test_any_value_is_a_short_key(values: list[str]) -> None:
    """Long, empty, with colons or newlines: what stands in Redis is its hash."""
    limit = Limit(concurrency=1, by="customer")

    keys = {limit.permit(Charge(customer=value)).key for value in values}

    assert len(keys) == len(values)
    assert all(len(key) == 49 and key.isascii() for key in keys)


def test_a_function_may_say_whom_a_job_is_for() -> None:
    """One that fails lets all of these jobs share a permit: the limit holds for them, too."""
    limit = Limit(concurrency=1, by=_first_tag)

    keys = [
        key for (key,) in _keys([limit], *(Charge(customer="c", tags=tags) for tags in (("a",), ("a", "b"), (), ())))
    ]

    assert (keys[0] == keys[1], keys[2] == keys[3], keys[0] != keys[2]) == (True, True, True)


def _numbers(payload: Charge) -> list[dict[str, set[int]]]:
    return [{"of": set(map(int, payload.tags))}]


def test_a_value_is_the_same_in_every_process() -> None:
    """Sets have another order in each, as these two have in one; each worker would count for itself."""
    one, other = Charge(customer="c", tags=("0", "8")), Charge(customer="c", tags=("8", "0"))

    a, b = _keys([Limit(concurrency=1, by=_numbers)], one, other)

    assert (list({0, 8}) != list({8, 0}), a == b) == (True, True)


def test_a_changed_number_is_the_same_limit() -> None:
    """So jobs that wait for it go on to wait; another time, or another key, is another limit."""
    names = [
        limit.id_of("charge")
        for limit in (
            Limit(concurrency=3), Limit(concurrency=5), Limit(rate=3, per=_MINUTE), Limit(rate=5, per=_MINUTE),
            Limit(rate=3, per=2 * _MINUTE), Limit(concurrency=3, by="customer"),
        )
    ]  # fmt: skip

    assert (names[0] == names[1], names[2] == names[3], len(set(names))) == (True, True, 4)


def test_a_registry_knows_the_limits_of_its_jobs() -> None:
    """Under their former names, too: those jobs share the permits."""
    limits = [Limit(concurrency=3), Limit(rate=100, per=_MINUTE, by="customer")]
    registry = Registry(JobSpec(Charge, do, limits=limits, former_names=("pay",)), JobSpec(Refund, do))

    assert sorted(registry.limits.values()) == ["100:60000", "3:0"]
    assert registry["pay"].limits == tuple(limits)
