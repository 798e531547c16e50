"""Resources: what is opened with a worker, closed with it, and shared by its jobs. Knows neither jobs nor servers."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from arqonce.failures import text_of

if TYPE_CHECKING:
    from arqonce.settings.worker import Settings

T_co = TypeVar("T_co", covariant=True)

Opener = Callable[[], AbstractAsyncContextManager[T_co]] | Callable[["Settings"], AbstractAsyncContextManager[T_co]]

_MOST = 300
"""Most characters of an error's text in the line that says why a resource cannot be opened."""


class ResourceError(RuntimeError):
    """A resource cannot be opened; the text names it and the cause."""


class MissingResourceError(LookupError):
    """A job asks for a resource that nobody has opened. A bug, so it is not retried; the text names the cure."""


class Resource(Generic[T_co]):
    """The typed key of something that each worker opens when it starts and closes when it ends.

        HTTP = Resource("http", httpx.AsyncClient)

    A registry names it in ``resources``; a handler gets it as ``job[HTTP]``. ``opener`` returns an asynchronous context
    manager; it is called without arguments, or with the worker's ``Settings`` if it requires one argument. It is
    entered and left in one task of the worker's event loop.
    """

    def __init__(self, name: str, opener: Opener[T_co]) -> None:
        """Open nothing. The name is used in messages, and must be unique within a worker.

        Raises:
            TypeError: the name is empty, or the opener cannot be called like that.
        """
        if not (isinstance(name, str) and name):
            raise TypeError('a resource needs a name: Resource("bank", open_bank)')
        self.name = name
        self._opener = opener
        self._takes_settings = _takes_settings(name, opener)

    def __eq__(self, other: object) -> bool:
        """Return whether both have one name and one opener: a key is the same in each process that has loaded it."""
        return isinstance(other, Resource) and (self.name, self._opener) == (other.name, other._opener)

    def __hash__(self) -> int:
        """Agree with ``__eq__``."""
        return hash(self.name)

    def __repr__(self) -> str:
        """Return the name."""
        return f"Resource({self.name!r})"

    def open(self, settings: "Settings") -> AbstractAsyncContextManager[T_co]:
        """Return the context manager of one worker's instance.

        Raises:
            ResourceError: the opener returns something else.
        """
        opener = cast("Callable[..., object]", self._opener)
        opened = opener(settings) if self._takes_settings else opener()
        if not (hasattr(opened, "__aenter__") and hasattr(opened, "__aexit__")):
            if inspect.iscoroutine(opened):
                opened.close()
            raise ResourceError(
                f"the resource {self.name} cannot be opened: its opener returned {type(opened).__name__}, which is no "
                "asynchronous context manager. Decorate a generator function with contextlib.asynccontextmanager"
            )
        return cast("AbstractAsyncContextManager[T_co]", opened)


def _takes_settings(name: str, opener: object) -> bool:
    if not callable(opener):
        raise TypeError(f"the resource {name}: give a function that opens it, such as open_bank, without calling it")
    try:
        parameters = inspect.signature(opener).parameters.values()
    except (TypeError, ValueError):  # of a class in C
        return False
    required = [one for one in parameters if one.default is one.empty and one.kind not in _OPTIONAL]
    if len(required) > 1 or any(one.kind is one.KEYWORD_ONLY for one in required):
        raise TypeError(f"the resource {name}: its opener takes no argument, or one: the worker's Settings")
    return bool(required)


_OPTIONAL = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}

Resources = Mapping[Resource[Any], Any]
"""Opened resources by their keys."""


class Opened(dict[Resource[Any], Any]):
    """Opened resources. One that is missing raises an error with the cure."""

    cure = "name it in its registry: Registry(..., resources=[...])"

    def __missing__(self, resource: Resource[Any]) -> Any:  # noqa: ANN401 - nothing is returned
        """Raise ``MissingResourceError``."""
        name = resource.name if isinstance(resource, Resource) else repr(resource)[:_MOST]
        raise MissingResourceError(f"the job asks for the resource {name}, which is not open: {self.cure}")


@asynccontextmanager
async def open_resources(resources: Sequence[Resource[Any]], settings: "Settings") -> AsyncIterator[Opened]:
    """Open the resources in order, and close them in reverse; those that are open when a later one fails are closed.

    A task of its own enters and leaves them: arq's hooks for the start and the end run in different tasks, and the
    context managers of anyio and of ``asyncio.TaskGroup`` must be left in the task that entered them.

    Raises:
        ResourceError: one could not be opened.
    """
    if not resources:
        yield Opened()
        return
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[Opened] = loop.create_future()
    is_over = asyncio.Event()
    keeper = loop.create_task(_keep(resources, settings, opened, is_over), name="resources")
    try:
        either: list[asyncio.Future[Any]] = [opened, keeper]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if opened.done():
            yield opened.result()
    finally:
        if not opened.done():
            keeper.cancel()
        is_over.set()
        await asyncio.wait([keeper])
    await keeper  # raises why one could not be opened or closed


async def _keep(
    resources: Sequence[Resource[Any]], settings: "Settings", opened: "asyncio.Future[Opened]", is_over: asyncio.Event
) -> None:
    found = Opened()
    async with AsyncExitStack() as stack:
        for resource in resources:
            try:
                manager = resource.open(settings)
                found[resource] = await manager.__aenter__()
            except ResourceError:
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {text_of(error, _MOST)}".removesuffix(": ")
                raise ResourceError(f"the resource {resource.name} cannot be opened: {reason}") from error
            # Without the error of another one: an opener need not have "finally".
            stack.push_async_callback(manager.__aexit__, None, None, None)
        opened.set_result(found)
        await is_over.wait()
