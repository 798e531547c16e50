"""Finds functions that could be handlers: by their source, those that use nothing of ``ctx`` but the database.

Runs nothing. What cannot be read for certain is no candidate: a client for HTTP is called a session, too.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

_OPENING = frozenset({"begin", "begin_nested", "connect"})
"""Methods of SQLAlchemy that return another session, connection or transaction."""

_OF_SQL = _OPENING | {"execute", "scalar", "scalars", "stream", "stream_scalars", "add", "add_all", "commit", "flush"}
"""Methods that no client for anything else is likely to have."""

_HARMLESS = frozenset({"close", "aclose", "delete", "expunge", "get", "get_one", "merge", "refresh", "rollback"})
"""Methods of a session that prove nothing."""

_DATABASE = frozenset({"db", "database", "engine", "sessionmaker", "sessions"})
"""Words in a key of ``ctx`` that say enough, if the function only passes the object on."""


@dataclass(frozen=True)
class Candidate:
    """A function that could be a handler."""

    keys: tuple[str, ...]
    """What of ``ctx`` it uses."""

    fields: tuple[str, ...]
    """Its parameters as the fields of a payload, such as ``name: str = "Jane"``."""


def find_candidate(coroutine: Callable[..., Any]) -> Candidate | None:
    """Read a function of arq's; return ``None`` if it uses more than the database, or has no source."""
    if (function := _parse(coroutine)) is None:
        return None
    parameters = function.args
    named = [*parameters.posonlyargs, *parameters.args]
    if not named or parameters.vararg or parameters.kwarg:
        return None
    ctx = named[0].arg
    keys = _keys(function, ctx)
    if not keys or not all(_Uses(function, ctx, key).are_of_sql() for key in keys):
        return None
    return Candidate(tuple(sorted(keys)), tuple(_fields(parameters))[1:])


def _fields(parameters: ast.arguments) -> Iterator[str]:
    named = [*parameters.posonlyargs, *parameters.args]
    required = [None] * (len(named) - len(parameters.defaults))
    defaults = [*required, *parameters.defaults, *parameters.kw_defaults]
    for parameter, default in zip([*named, *parameters.kwonlyargs], defaults, strict=True):
        yield ast.unparse(parameter) + ("" if default is None else f" = {ast.unparse(default)}")


def _parse(coroutine: Callable[..., Any]) -> ast.AsyncFunctionDef | None:
    function = inspect.unwrap(coroutine)
    if not inspect.isfunction(function):
        return None
    try:
        (parsed,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    except (OSError, SyntaxError, ValueError):
        return None
    return parsed if isinstance(parsed, ast.AsyncFunctionDef) else None


def _keys(function: ast.AsyncFunctionDef, ctx: str) -> set[str] | None:
    """Return the keys of all uses of ``ctx``; ``None`` if it is used otherwise."""
    found = {key for node in ast.walk(function) if (key := _key(node, ctx)) is not None}
    uses = sum(isinstance(node, ast.Name) and node.id == ctx for node in ast.walk(function))
    keyed = sum(_key(node, ctx) is not None for node in ast.walk(function))
    return found if uses == keyed else None


def _key(node: ast.AST, ctx: str) -> str | None:
    """Return the key of ``ctx["key"]``."""
    match node:
        case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str() as key), ctx=ast.Load()):
            return key if name == ctx else None
    return None


class _Uses:
    """What a function does with one object in ``ctx``, and with what it opens of it."""

    def __init__(self, function: ast.AsyncFunctionDef, ctx: str, key: str) -> None:
        self._nodes = list(ast.walk(function))
        self._ctx = ctx
        self._key = key
        self._names: set[str] = set()
        found = -1
        while found < len(self._names):  # a name may be given another name
            found = len(self._names)
            self._names.update(target.id for target, value in self._bindings() if self._is_it(value))

    def are_of_sql(self) -> bool:
        """Return whether it is a session, a sessionmaker or an engine of SQLAlchemy."""
        methods = {node.attr for node in self._nodes if isinstance(node, ast.Attribute) and self._is_it(node.value)}
        if not methods <= _OF_SQL | _HARMLESS:
            return False
        return bool(methods & _OF_SQL) or self._has_telling_name()

    def _has_telling_name(self) -> bool:
        if not _DATABASE.isdisjoint(re.split(r"[\W_]+", self._key.lower())):
            return True
        calls = [node.func for node in self._nodes if isinstance(node, ast.Call)]
        return "session" in self._key.lower() and any(_key(called, self._ctx) == self._key for called in calls)

    def _bindings(self) -> Iterator[tuple[ast.Name, ast.expr]]:
        for node in self._nodes:
            match node:
                case ast.Assign(targets=[ast.Name() as target], value=value):
                    yield target, value
                case ast.AnnAssign(target=ast.Name() as target, value=ast.expr() as value):
                    yield target, value
                case ast.withitem(optional_vars=ast.Name() as target, context_expr=value):
                    yield target, value

    def _is_it(self, value: ast.expr) -> bool:
        match value:
            case ast.Name(id=name):
                return name in self._names
            case ast.Call(func=ast.Attribute(value=opened, attr=method)):
                return method in _OPENING and self._is_it(opened)
            case ast.Call(func=made) | ast.Await(value=made):
                return self._is_it(made)
        return _key(value, self._ctx) == self._key
