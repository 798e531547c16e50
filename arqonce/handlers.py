"""Checks handlers when they are registered: they are coroutine functions, and take the right parameters."""

import inspect
from functools import partial

_POSITIONAL = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}


def require_async(function: object, role: str, job_name: str) -> None:
    """Return if calling the function makes a coroutine, as far as that can be known.

    Raises:
        TypeError: it does not.
    """
    while isinstance(function, partial):
        function = function.func
    called = getattr(function, "__call__", None)  # noqa: B004 - an object may be a handler, if its __call__ is async
    if not any(map(inspect.iscoroutinefunction, (function, inspect.unwrap(function), called))):  # type: ignore[arg-type] # it may be anything
        name = getattr(function, "__qualname__", repr(function)[:100])
        raise TypeError(f"the {role} of {job_name}, {name}, is no coroutine function: write async def")


def takes_job(function: object, role: str, usual: str, more: str) -> bool:
    """Return whether a handler takes one parameter more than the ``usual`` ones: the context.

    A parameter with a default is the handler's own, unless its annotation names JobContext. A wrapper that takes any
    arguments is judged by what it wraps (``functools.wraps``), and may itself add arguments that are no JobContext.

    Raises:
        TypeError: it cannot be called either way. ``role`` and ``more`` say so, and the cure.
    """
    found = _parameters(function)
    if found is None:
        return False
    parameters, is_wrapped = found
    number = usual.count(",") + 1
    if is_wrapped:
        return any(_is_context(one) for one in parameters)
    takes_any = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    positional = [one for one in parameters if one.kind in _POSITIONAL]
    needed = [one for one in parameters if one.default is one.empty or _is_context(one)]
    takes = [one for one in positional if one in needed]
    has_others = any(one.kind is one.KEYWORD_ONLY for one in needed)
    is_turned = any("AsyncSession" in str(one.annotation) for one in positional[1:number])
    if has_others or is_turned or len(takes) > number + 1 or (len(positional) < number and not takes_any):
        name = getattr(function, "__qualname__", repr(function)[:100])
        raise TypeError(f"{role}, {name}, must take ({usual}) or ({usual}, {more}), in this order")
    return len(takes) > number


def _is_context(parameter: inspect.Parameter) -> bool:
    return "JobContext" in str(parameter.annotation)


def _parameters(function: object) -> tuple[list[inspect.Parameter], bool] | None:
    """Return the parameters, and whether they are those of what a wrapper wraps; ``None`` if they are unknown."""
    try:
        own = inspect.signature(function, follow_wrapped=False)  # type: ignore[arg-type] # it can be called
        if any(one.kind is one.VAR_POSITIONAL for one in own.parameters.values()):
            wrapped = inspect.signature(function)  # type: ignore[arg-type] # as above
            if wrapped != own:
                return list(wrapped.parameters.values()), True
    except (TypeError, ValueError):  # of a function in C
        return None
    return list(own.parameters.values()), False
