"""Inserts code into Python files. Leaves existing code as it is, and writes what the formatter would write."""

import ast

from arqonce.usage import UsageError

_WIDTH = 120
"""Longest line, as in pyproject.toml."""


class SourceError(UsageError):
    """A file does not have the expected form. The text says what is missing."""


def top_level_names(source: str) -> set[str]:
    """Return every name that the module defines or imports."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def with_import(source: str, module: str, *names: str) -> str:
    """Add ``from module import names`` in the formatter's order, or merge it into an import from the same module."""
    imports = [node for node in ast.parse(source).body if isinstance(node, ast.ImportFrom)]
    same = next((node for node in imports if node.module == module), None)
    package = module.partition(".")[0]
    behind = next((node for node in imports if node.module and _is_behind(node.module, package, module)), None)
    if same is not None:
        first, last = same.lineno - 1, same.end_lineno or same.lineno
        names = (*names, *(alias.name for alias in same.names))
    elif behind is not None:
        first = last = behind.lineno - 1
    else:
        first = last = imports[-1].end_lineno or 0
    lines = source.splitlines(keepends=True)
    return "".join([*lines[:first], import_line(module, *names), *lines[last:]])


def _is_behind(other: str, package: str, module: str) -> bool:
    return other.partition(".")[0] == package and other > module


def import_line(module: str, *names: str) -> str:
    """Return an import statement, on several lines if it is too long for one."""
    ordered = sorted(set(names), key=_rank)
    line = f"from {module} import {', '.join(ordered)}\n"
    if len(line) <= _WIDTH + 1:
        return line
    return "\n".join([f"from {module} import (", *(f"    {name}," for name in ordered), ")", ""])


def _rank(name: str) -> tuple[int, str]:
    """Return the formatter's sort key: constants, classes, functions."""
    if len(name) > 1 and name.isupper():
        return 0, name
    return 1 if name[0].isupper() else 2, name


def with_argument(source: str, name: str, argument: str) -> str:
    """Add a last positional argument, on its own line, to the call whose result is assigned to ``name``.

    Raises:
        SourceError: there is no such call, or its closing parenthesis is not on its own line.
    """
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and ast.unparse(node.targets[0]) == name:
            lines = source.splitlines(keepends=True)
            last = (node.end_lineno or node.lineno) - 1
            if lines[last].strip() == ")":
                at = min((keyword.value.lineno - 1 for keyword in node.value.keywords), default=last)
                return "".join([*lines[:at], f"    {argument},\n", *lines[at:]])
    raise SourceError(f"there is no call {name} = ...( with its closing parenthesis on a separate line")


def with_code(source: str, code: str, *, before: str | None = None) -> str:
    """Add classes at the end, or before the line that begins with ``before``, with two empty lines around them."""
    head, line, tail = source, "", ""
    if before is not None and f"\n{before}" in source:
        head, line, tail = source.partition(f"\n{before}")
    rest = f"\n{line}{tail}" if line else ""
    return f"{head.rstrip()}\n\n\n{code.strip()}\n{rest}"


def function_line(name: str, parameters: str, returns: str) -> str:
    """Return the signature of a coroutine function, on several lines if it is too long for one."""
    line = f"async def {name}({parameters}) -> {returns}:"
    return line if len(line) <= _WIDTH else f"async def {name}(\n    {parameters}\n) -> {returns}:"
