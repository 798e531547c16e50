"""What ``import arqonce`` offers: the same to programs and to type checkers."""

import ast
import inspect
import sys
from importlib import import_module
from pathlib import Path

import pytest

import arqonce
from arqonce import failures

_SOURCE = ast.parse(Path(arqonce.__file__).read_text())


def _imported_for_checkers() -> dict[str, set[str]]:
    (block,) = [node for node in _SOURCE.body if isinstance(node, ast.If)]
    found: dict[str, set[str]] = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        found.setdefault(node.module or "", set()).update(name.asname or "" for name in node.names)
    return found


def test_type_checkers_and_programs_see_the_same_names() -> None:
    """They stand in two lists: the second one loads nothing before it is used."""
    assert {module: set(names) for module, names in arqonce._HOMES.items()} == _imported_for_checkers()


@pytest.mark.parametrize("name", arqonce._HOME_OF)
def test_each_name_is_that_of_its_module(name: str) -> None:
    """And it is there when asked for."""
    assert getattr(arqonce, name) is getattr(import_module(arqonce._HOME_OF[name]), name)
    assert name in dir(arqonce)


def test_a_star_imports_the_names_whose_packages_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """As type checkers see it; of a producer, where no worker is installed, its own."""
    found: dict[str, object] = {}
    exec("from arqonce import *", found)  # noqa: S102 - a function cannot have this statement
    monkeypatch.delitem(vars(arqonce), "Worker", raising=False)
    monkeypatch.delitem(sys.modules, "arqonce.arq.worker")
    monkeypatch.setitem(sys.modules, "arq.worker", None)
    without: dict[str, object] = {}
    exec("from arqonce import *", without)  # noqa: S102 - as above

    assert found.keys() - {"__builtins__"} == arqonce._HOME_OF.keys()
    assert found.keys() - without.keys() == {"Worker"}


def test_each_failure_that_a_producer_may_catch_is_there() -> None:
    """A new class of failures is exported with its first version."""
    errors = [
        found for _, found in inspect.getmembers(failures, inspect.isclass) if issubclass(found, failures.JobError)
    ]

    assert sorted(arqonce._HOMES["arqonce.failures"]) == sorted(error.__name__ for error in errors)
