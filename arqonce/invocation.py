"""How the running command was started, for messages that say what to type next, and for children like it."""

import os
import shlex
import shutil
import sys
from pathlib import Path


def as_typed(name: str) -> str:
    """Return what starts the command ``name`` again from this folder: the name alone only if the shell finds it."""
    started = Path(sys.argv[0])
    if started.name == "__main__.py":
        module = getattr(sys.modules["__main__"].__spec__, "parent", "") or started.parent.name
        return f"{beside('python')} -m {module}"
    found = shutil.which(name)
    is_found = found is not None and started.exists() and Path(found).samefile(started)
    return name if is_found or started.name != name else shlex.quote(sys.argv[0])


def beside(name: str) -> str:
    """Return what starts a program of this Python's environment from this folder, in the same way."""
    own, found = Path(sys.executable).with_name(name), shutil.which(name)
    if found is not None and Path(found).parent == own.parent:
        return name
    if not own.exists():  # as "python" where it is called python3 alone
        return shlex.quote(sys.executable) if name == "python" else name
    return shlex.quote(str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own))


def module_command(module: str) -> list[str]:
    """Return the command for ``python -m module`` that finds modules where this process does.

    A script does not look in the current folder first. There may be other modules of these names.
    """
    looks_here_first = sys.path[0] in {"", os.getcwd()}  # noqa: PTH109 - as Python writes it
    return [sys.executable, *([] if looks_here_first else ["-P"]), "-m", module]
