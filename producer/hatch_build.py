"""Makes the package ``users_jobs`` of those modules of ``jobs/`` that a producer needs. Run by hatchling.

Nothing is written into the checkout. An sdist holds the package as it was made, and is built without this.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import copy
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_SOURCE, _PACKAGE = "jobs", "users_jobs"

_ENTRIES = ("__init__", "testing.enqueued", "testing.stand_ins")
"""What a producer and its tests import. What these modules import, and the packages in which they are, come along."""

_ALLOWED = frozenset({_SOURCE, "pydantic", "pydantic_core", "redis", "hiredis"}) | sys.stdlib_module_names
"""What these modules may import: nothing else is among the dependencies."""


class ProducerHook(BuildHookInterface[Any]):
    """Adds the package to wheel and sdist."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Make the package in a temporary folder, and name it to the builder."""
        # Looked for first: beside an unpacked sdist there may be a folder jobs/ that is somebody else's.
        if (Path(self.root) / _PACKAGE).is_dir():
            return
        self._folder = TemporaryDirectory()
        _write_package(Path(self.root).parent / _SOURCE, Path(self._folder.name))
        build_data["force_include"][self._folder.name] = _PACKAGE

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - as above
        """Remove the temporary folder."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()


def _write_package(source: Path, target: Path) -> None:
    texts = _read_modules(source)
    # Also in docstrings and errors, which tell people what to import.
    names = "|".join(map(re.escape, sorted(texts, reverse=True)))  # the longest of those that begin alike first
    ours = re.compile(rf"(?<![\w.]){_SOURCE}(?=\.(?:{names})\b)|(?<=from ){_SOURCE}(?= import )")
    for name, text in texts.items():
        file = target / _file(source, name).relative_to(source)
        file.parent.mkdir(exist_ok=True)
        file.write_text(ours.sub(_PACKAGE, text), encoding="utf-8")
    copy(source / "py.typed", target)


def _read_modules(source: Path) -> dict[str, str]:
    """Return the text of each module that a producer needs, by its name within the package.

    Raises:
        ImportError: one of them imports what is no dependency of the distribution.
    """
    texts: dict[str, str] = {}
    waiting = list(_ENTRIES)
    while waiting:
        name = waiting.pop()
        if name in texts or not _file(source, name).is_file():  # an attribute of a module
            continue
        texts[name] = _file(source, name).read_text(encoding="utf-8")
        waiting += filter(None, [name.rpartition(".")[0]])
        for package, module in _imports(texts[name]):
            if package not in _ALLOWED:
                file = _file(source, name).relative_to(source.parent)
                raise ImportError(f"{file} imports {package}, which a producer does not install")
            if package == _SOURCE:
                waiting.append(module)
    return texts


def _file(source: Path, name: str) -> Path:
    path = source.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imports(text: str) -> Iterator[tuple[str, str]]:
    """Yield package and module of each import, wherever it stands; of a name, too, which may be a module's."""
    for node in ast.walk(ast.parse(text)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module or ''}.{alias.name}" for alias in node.names)]
        for name in names:
            package, _, module = name.partition(".")
            yield package, module or "__init__"
