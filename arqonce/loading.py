"""Loads the modules of a process with less CPU time and memory. Imports hardly anything itself.

For processes of ours alone, and before they load anything else: it changes how the interpreter loads modules.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any


class _Loading:
    is_on = False


def begin_loading() -> None:
    """Collect no garbage until ``end_loading``. While modules load, nearly all new objects stay.

    The collector would look at all of them again and again: a quarter of the time of a start.
    """
    _Loading.is_on = True
    gc.disable()


def end_loading() -> None:
    """Collect garbage again, but never look at what was loaded: it stays until the process ends."""
    gc.freeze()
    gc.enable()
    _Loading.is_on = False


def is_loading() -> bool:
    """Return whether loading has begun and not ended."""
    return _Loading.is_on


def load_libraries() -> None:
    """Load redis-py and structlog, without libraries that they import and that our processes do not need.

    redis-py imports PyJWT, and with it cryptography, for the tokens of Entra ID; structlog imports rich for tracebacks
    on a console. Without them a worker needs 15 MB less. Whoever uses these parts has them loaded then.
    """
    with _stand_ins("jwt"):
        import_module("redis.asyncio")
    with _stand_ins("rich", "rich.console", "rich.pretty", "rich.traceback"):
        import_module("structlog")


@contextmanager
def _stand_ins(*names: str) -> Iterator[None]:
    """Let what is imported meanwhile get stand-ins for these modules, unless they are loaded already."""
    stand_ins = {name: _Module(name) for name in names if name not in sys.modules}
    for name, stand_in in stand_ins.items():
        parent, _, own = name.rpartition(".")
        if parent in stand_ins:
            vars(stand_ins[parent])[own] = stand_in
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]


class _Module(ModuleType):
    """Stands in for a module. Its names stand in for the module's own."""

    def __getattr__(self, name: str) -> "_Name":
        if name.startswith("__"):
            raise AttributeError(name)
        return _Name(self.__name__, name)


class _Name:
    """Stands in for a function, a class or a constant of a module, which is loaded when this is used."""

    def __init__(self, module: str, name: str) -> None:
        self._home = module, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the function that it stands in for
        return self._real()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as above
        return getattr(self._real(), name)

    def _real(self) -> Any:  # noqa: ANN401 - as above
        module, name = self._home
        return getattr(import_module(module), name)
