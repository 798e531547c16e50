"""Finds the registries that ``WORKER_REGISTRY`` names: whose jobs a worker runs.

They are named by a setting and not found by entry points: what a worker runs then stands in its deployment and not in
what else happens to be installed, and a project that is copied into an image needs no metadata.
"""

import pkgutil
import re
import sys
from collections.abc import Iterable

from arqonce.database.schema import Schema
from arqonce.environment import SettingsError
from arqonce.spec import Registry


class RegistryError(SettingsError):
    """A registry cannot be used; the text names it, and the cure."""


def load_registry(names: str | None, own: Registry | None = None, *, owner: str = "the application") -> Registry:
    """Return the jobs of ``own`` and of the registries that are named as in ``WORKER_REGISTRY``; imports their modules.

    ``owner`` is what errors call the one that has ``own``.

    Raises:
        RegistryError: one cannot be imported, or has a job or a table that another has already.
    """
    listed = [name for name in re.split(r"[\s,]+", names or "") if name]
    if twice := next((name for name in listed if listed.count(name) > 1), None):
        raise _wrong(twice, "is named twice: name it once")
    others = [(name, _import_registry(name)) for name in listed]
    named = [*([] if own is None else [(owner, own)]), *((name, other) for name, other in others if other is not own)]
    _require_own_jobs(named)
    _require_own_tables((name, schema) for name, registry in named for schema in registry.schemas)
    joined = Registry().joined(registry for _, registry in named)
    joined.setting = ",".join(listed) or None
    return joined


def _import_registry(name: str) -> Registry:
    module = name.partition(":")[0]
    try:
        found = pkgutil.resolve_name(name)
    except ModuleNotFoundError as error:
        # Only the module that was named, or a package around it; another one is missing in their code.
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            cure = "install its project, or name its folder in PYTHONPATH"
            raise _wrong(name, f"there is no module {error.name}: {cure}") from None
        raise _wrong(name, f"cannot be imported: {error}") from error
    except AttributeError as error:
        if module in sys.modules:  # it could be imported
            raise _wrong(name, f"there is no {name.partition(':')[2]} in {module}{_registries(module)}") from None
        raise _wrong(name, f"cannot be imported: {type(error).__name__}: {error}") from error
    except Exception as error:  # whatever the module does when it is imported
        raise _wrong(name, f"cannot be imported: {type(error).__name__}: {error}") from error
    if not isinstance(found, Registry):
        raise _wrong(name, f"is no arqonce.Registry, but of type {type(found).__name__}{_registries(module)}")
    return found


def _registries(module: str) -> str:
    """Say what could be meant instead."""
    there = [name for name, value in vars(sys.modules[module]).items() if isinstance(value, Registry)]
    return f". Its registries are: {', '.join(there)}" if there else ", nor has it any arqonce.Registry"


def _require_own_jobs(registries: Iterable[tuple[str, Registry]]) -> None:
    owners: dict[str, str] = {}
    for owner, registry in registries:
        for job in registry.names:
            if job in owners:
                raise _wrong(owner, f"the job {job} is one of {owners[job]}: give its payload another job_name")
            owners[job] = owner


def _require_own_tables(schemas: Iterable[tuple[str, Schema]]) -> None:
    owners: dict[str, tuple[str, Schema]] = {}
    for owner, schema in schemas:
        for table in [*schema.metadata.tables, schema.version_place]:
            first, known = owners.setdefault(table, (owner, schema))
            if known is schema:
                continue
            if known.metadata is schema.metadata:
                raise _wrong(owner, f"its tables are among those of {first}: give it a DeclarativeBase of its own")
            if known.name == schema.name:
                raise _wrong(owner, f"its schema has the name of that of {first}: {schema.name}. Give it another")
            if table == schema.version_place:
                raise _wrong(owner, f"its version_table {table} is that of {first}: give its Schema another")
            raise _wrong(owner, f"its table {table} is one of {first}: give it another __tablename__")


def _wrong(name: str, problem: str) -> RegistryError:
    return RegistryError(f"WORKER_REGISTRY: {name}: {problem}.")
