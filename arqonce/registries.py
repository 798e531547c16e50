"""Imports the registries that ``WORKER_REGISTRY`` names: the jobs that a worker runs.

A setting names them, not entry points: the deployment then decides what a worker runs, not the installed packages, and
a project that is copied into an image needs no package metadata.
"""

import pkgutil
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from pydantic import PydanticUndefinedAnnotation, ValidationError

from arqonce.database.schema import Schema
from arqonce.environment import SettingsError
from arqonce.payloads import AnyPayload
from arqonce.resources import Resource
from arqonce.spec import Registry

NAMED_BY = ContextVar("NAMED_BY", default="WORKER_REGISTRY")
"""Where a person has named the registries, for errors: the setting, or the option --registry."""


class RegistryError(SettingsError):
    """A registry cannot be used. The text names it and the cure."""


def load_registry(names: str | None, own: Registry | None = None, *, owner: str = "the application") -> Registry:
    """Return a registry of the jobs of ``own`` and of the registries in ``names``. Imports their modules.

    ``names`` has the format of ``WORKER_REGISTRY``. ``owner`` is the name of ``own`` in errors.

    Raises:
        RegistryError: a registry cannot be imported, or has a job, a schedule, a table or a resource of another one.
    """
    listed = [name for name in re.split(r"[\s,]+", names or "") if name]
    if twice := next((name for name in listed if listed.count(name) > 1), None):
        raise _wrong(twice, "is named twice: name it once")
    others = [(name, _import_registry(name)) for name in listed]
    named = [*([] if own is None else [(owner, own)]), *((name, other) for name, other in others if other is not own)]
    _require_own_jobs(named)
    _require_complete((name, spec.payload) for name, registry in named for spec in registry)
    _require_own_schedules(named)
    _require_own_tables((name, schema) for name, registry in named for schema in registry.schemas)
    _require_own_resources((name, resource) for name, registry in named for resource in registry.resources)
    joined = Registry().joined(registry for _, registry in named)
    joined.setting = ",".join(listed) or None
    return joined


def _import_registry(name: str) -> Registry:
    module = name.partition(":")[0]
    with suppress(FileNotFoundError):  # a deploy may have removed the folder
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.append(here)  # last, so that nothing that is installed is hidden
    try:
        found = pkgutil.resolve_name(name)
    except ModuleNotFoundError as error:
        # Only if the named module or a parent package is missing; any other is missing from their own imports.
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            cure = "install its project, or name its folder in PYTHONPATH"
            if error.name == module and module.endswith(".py"):
                cure = f"write {name.replace('.py:', ':')}, as import does"
            raise _wrong(name, f"there is no module {error.name}: {_hidden(module) or cure}") from None
        raise _wrong(name, f"cannot be imported: {error}{_place_of(error)}") from error
    except AttributeError as error:
        if module in sys.modules:  # the import succeeded
            where = f"in {module}{_registries(module)}{_hidden(module, '. ')}"
            raise _wrong(name, f"there is no {name.partition(':')[2]} {where}") from None
        raise _wrong(name, _why_not_imported(error)) from error
    except (Exception, SystemExit) as error:  # importing runs the module's code, which may raise anything
        raise _wrong(name, _why_not_imported(error)) from error
    if not isinstance(found, Registry):
        raise _wrong(name, f"is no arqonce.Registry, but of type {type(found).__name__}{_registries(module)}")
    return found


def _why_not_imported(error: BaseException) -> str:
    return f"cannot be imported: {type(error).__name__}: {_text_of(error)}{_place_of(error)}"


def _text_of(error: BaseException) -> str:
    """Return the error's text in one line; of values that pydantic has refused, such as settings, not the values."""
    if not isinstance(error, ValidationError):
        return " ".join(str(error).split())
    found = error.errors(include_url=False, include_input=False, include_context=False)
    problems = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}".removeprefix(": ") for one in found)
    return f"{error.title}: {'; '.join(problems)}"


def _place_of(error: BaseException) -> str:
    """Return a text that names the last line of the project that was executed; empty if none was."""
    from arqonce.execution.places import handlers_place, places_of_trace  # noqa: PLC0415 - of no use to what succeeds

    place = handlers_place(places_of_trace(error.__traceback__))
    return "" if place is None else f" ({place.file}, line {place.line})"


def _registries(module: str) -> str:
    """Return a text that lists the module's registries."""
    there = [name for name, value in vars(sys.modules[module]).items() if isinstance(value, Registry)]
    return f". Its registries are: {', '.join(there)}" if there else "; the module has no arqonce.Registry"


def _hidden(module: str, before: str = "") -> str:
    """Return a text that says which installed module hides one of the current folder; empty if none does."""
    top = module.partition(".")[0]
    own = next((path.absolute() for path in (Path(top), Path(f"{top}.py")) if path.exists()), None)
    found = getattr(sys.modules.get(top), "__file__", None)
    if own is None or found is None or Path(found).is_relative_to(Path.cwd()):
        return ""
    return f"{before}{top} is {found}, which hides {own}: give this another name"


def _require_own_jobs(registries: Iterable[tuple[str, Registry]]) -> None:
    owners: dict[str, str] = {}
    for owner, registry in registries:
        for job in registry.names:
            if job in owners:
                raise _wrong(owner, f"the job {job} is one of {owners[job]}: give its payload another job_name")
            owners[job] = owner


def _require_complete(payloads: Iterable[tuple[str, type[AnyPayload]]]) -> None:
    """Find names in annotations that only type checkers know: otherwise the first one to see them is the first job."""
    for owner, payload in payloads:
        for kind in (payload, payload.result_type()):
            try:
                kind.model_rebuild(_types_namespace={})  # does nothing to one that is complete
            except PydanticUndefinedAnnotation as error:
                where = f"{kind.__module__}.{kind.__qualname__}"
                cure = "import it outside of TYPE_CHECKING"
                raise _wrong(owner, f"an annotation of {where} has no {error.name} at run time: {cure}") from None


def _require_own_schedules(registries: Iterable[tuple[str, Registry]]) -> None:
    owners: dict[str, str] = {}
    for owner, registry in registries:
        for name in registry.schedules:
            if name in owners:
                raise _wrong(owner, f"the schedule {name} is one of {owners[name]}: give it another name")
            owners[name] = owner


def _require_own_resources(resources: Iterable[tuple[str, Resource[Any]]]) -> None:
    owners: dict[str, tuple[str, Resource[Any]]] = {}
    for owner, resource in resources:
        first, known = owners.setdefault(resource.name, (owner, resource))
        if known != resource:
            raise _wrong(owner, f"its resource {resource.name} has the name of one of {first}: give it another")


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
    return RegistryError(f"{NAMED_BY.get()}: {name}: {problem}.")
