"""What is opened with a worker is closed with it, whatever happens in between."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Self

import pytest

from arqonce.resources import MissingResourceError, Resource, ResourceError, open_resources
from arqonce.settings.worker import Settings


class _Log(list[str]):
    """Opens resources and notes it, each in the task that it was opened in."""

    def opener(self, name: str, *, fails: str = "") -> Callable[[], AbstractAsyncContextManager[str]]:
        @asynccontextmanager
        async def opened() -> AsyncIterator[str]:
            if fails == "opening":
                raise ConnectionError("no bank there")
            self.append(f"open {name}")
            task = asyncio.current_task()
            yield name
            assert asyncio.current_task() is task
            self.append(f"close {name}")
            if fails == "closing":
                raise RuntimeError("broken")

        return opened

    def resource(self, name: str, *, fails: str = "") -> Resource[str]:
        return Resource(name, self.opener(name, fails=fails))


async def test_they_are_closed_in_reverse_by_whichever_task(settings: Settings) -> None:
    """Arq's hooks run in different tasks, and context managers of anyio must be left in the task that entered them."""
    log = _Log()
    bank, cache, other = log.resource("bank"), log.resource("cache"), log.resource("other")
    opening = open_resources([bank, cache], settings)

    opened = await asyncio.create_task(opening.__aenter__())
    found = (opened[bank], opened[cache])
    with pytest.raises(MissingResourceError, match=r"the resource other, which is not open: name it in its registry"):
        opened[other]
    await asyncio.create_task(opening.__aexit__(None, None, None))

    assert found == ("bank", "cache")
    assert log == ["open bank", "open cache", "close cache", "close bank"]


async def test_one_that_fails_closes_those_before_it(settings: Settings) -> None:
    """And names itself."""
    log = _Log()
    resources = [log.resource("bank"), log.resource("cache", fails="opening"), log.resource("never")]

    with pytest.raises(ResourceError, match="the resource cache cannot be opened: ConnectionError: no bank there"):
        async with open_resources(resources, settings):
            raise AssertionError

    assert log == ["open bank", "close bank"]


async def test_one_that_cannot_be_closed_leaves_none_open(settings: Settings) -> None:
    """Its error is raised, unless another one is on its way."""
    log = _Log()
    resources = [log.resource("bank"), log.resource("cache", fails="closing")]

    with pytest.raises(RuntimeError, match="broken"):
        async with open_resources(resources, settings):
            pass
    with pytest.raises(KeyError, match="first"):
        async with open_resources(resources, settings):
            raise KeyError("first")

    assert log == ["open bank", "open cache", "close cache", "close bank"] * 2


async def test_a_start_that_is_cancelled_closes_what_is_open(settings: Settings) -> None:
    """A bank that never answers must not hold up the end."""
    log = _Log()
    is_waiting = asyncio.Event()

    @asynccontextmanager
    async def hang() -> AsyncIterator[str]:
        is_waiting.set()
        await asyncio.Event().wait()
        yield ""

    opening = open_resources([log.resource("bank"), Resource("hanging", hang)], settings)
    start = asyncio.create_task(opening.__aenter__())
    await is_waiting.wait()
    start.cancel()
    await asyncio.wait([start])

    assert start.cancelled()
    assert log == ["open bank", "close bank"]


async def _returns_client() -> str:
    return "client"


@pytest.mark.parametrize(("opener", "found"), [(_returns_client, "coroutine"), (lambda: "client", "str")])
async def test_what_is_no_context_manager_is_named(opener: Any, found: str, settings: Settings) -> None:  # noqa: ANN401 - mistakes
    """The decorator is easily forgotten."""
    with pytest.raises(ResourceError, match=f"the resource bank cannot be opened: its opener returned {found}, which"):
        async with open_resources([Resource("bank", opener)], settings):
            pass


class _Bank:
    def __init__(self, name: str = "") -> None:
        self.name = name

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


@asynccontextmanager
async def _with_settings(settings: Settings) -> AsyncIterator[str]:
    yield settings.worker.default_queue


async def test_an_opener_may_be_a_class_or_take_the_settings(settings: Settings) -> None:
    """Settings are for openers that require an argument."""
    by_class, by_settings = Resource("class", _Bank), Resource("settings", _with_settings)

    async with open_resources([by_class, by_settings], settings) as opened:
        assert (opened[by_class].name, opened[by_settings]) == ("", "arq:queue")
