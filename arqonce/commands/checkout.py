"""Finds a developer's checkout of a project, and changes its files together or not at all."""

import os
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from arqonce.application import Application
from arqonce.usage import UsageError


class CheckoutError(UsageError):
    """There is no checkout to write to. The text names an alternative."""


def find_checkout(application: Application) -> Path:
    """Return the root folder of the checkout that runs this application.

    Raises:
        CheckoutError: this is an installed copy, or the current folder is not inside the checkout.
    """
    root, here = application.checkout, Path.cwd()
    if root is None:
        raise CheckoutError(
            f"{application.name} does not say where its checkout is: write payload, handler and registry yourself, as "
            "examples/shop does"
        )
    if not _is_checkout(root, application.name):
        raise CheckoutError(
            f"this is an installed copy of {application.name} ({root}), and jobs are added to a checkout: clone it and "
            "run make setup there; or keep jobs in a project of your own, as examples/shop does, named by "
            "WORKER_REGISTRY"
        )
    if not here.is_relative_to(root):
        raise CheckoutError(f"the current folder is not in the checkout of {application.name}: run this in {root}")
    return root


def _is_checkout(root: Path, name: str) -> bool:
    file = root / "pyproject.toml"
    if not (file.is_file() and (root / "tests" / "jobs").is_dir()):
        return False
    project = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {})
    return bool(project.get("name") == name)


def write_together(files: Mapping[Path, str]) -> None:
    """Write all files, or leave all unchanged. Writes temporary files first, then renames each into place.

    Raises:
        CheckoutError: a file cannot be written.
    """
    before = {file: file.read_bytes() if file.exists() else None for file in files}
    try:
        for file, text in files.items():
            _beside(file).write_text(text, encoding="utf-8")
        for file in files:
            os.replace(_beside(file), file)  # noqa: PTH105 - the name of the system call
    except BaseException as error:
        _restore(before)
        if isinstance(error, OSError):
            raise CheckoutError(f"{error.filename}: {error.strerror}: nothing was written") from error
        raise


def _restore(before: Mapping[Path, bytes | None]) -> None:
    for file, content in before.items():
        with suppress(OSError):
            _beside(file).unlink(missing_ok=True)
            if content is None:
                file.unlink(missing_ok=True)
            elif file.read_bytes() != content:
                file.write_bytes(content)


def _beside(file: Path) -> Path:
    return file.with_name(f".{file.name}.new")
